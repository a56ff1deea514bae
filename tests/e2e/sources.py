"""What is built: the repository's own `examples/`, on the node's Git server."""

import secrets
import shutil
from pathlib import Path
from typing import Any

from node.node import Node
from node.places import GIT_NAME
from node.repositories import commit

from tests.integration.messages import Document, build_of
from tests.integration.service import ROOT

EXAMPLES = ROOT / "examples"


class Sources:
    """One test's own repository, and the events that want it built."""

    def __init__(self, node: Node, folder: Path, *, private: bool = False) -> None:
        self.name = f"{'private' if private else 'public'}/{secrets.token_hex(4)}.git"
        self.url = f"https://{GIT_NAME}/{self.name}"
        self.tree = folder / "tree"
        self._repository = node.repositories / self.name
        self._repository.parent.mkdir(exist_ok=True)

    def commit(self, example: Path, branch: str = "main", **files: str) -> str:
        """An example as the whole repository, with files of its own or of the test's; the commit's hash."""
        if self.tree.exists():
            shutil.rmtree(self.tree)
        shutil.copytree(example, self.tree)
        for name, text in files.items():
            (self.tree / name).write_text(text)
        return commit(self._repository, self.tree, branch=branch)

    def event(self, parser_id: str, event_id: str | None = None, **parameters: Any) -> Document:
        """An event that wants it built now; its correlation id is ``event_id``, or else the parser's.

        No two tests have an event in common, or they would have its image in common, for all push to one registry.
        """
        document = build_of(parser_id, event_id, **{"source_url": self.url} | parameters)
        document["id"] += f"/{self.name}"
        del document["time"]  # 004's: an old one would be superseded
        return document
