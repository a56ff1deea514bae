"""One real node for the whole suite, and on it a namespace for each test as `k8s/` ships it."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from node.node import Node, missing

from tests.e2e.installation import Installation, Installations


@pytest.fixture(scope="session")
def node() -> Iterator[Node]:
    """A real cluster of one node. Skips where it cannot be had, but fails in CI, as ``control_plane`` does."""
    if (why := missing()) is not None:
        absent = pytest.fail if "CI" in os.environ else pytest.skip
        absent(f"needs a real node: {why}")
    with Node() as node:
        yield node


@pytest.fixture
async def installations(node: Node, tmp_path: Path) -> AsyncIterator[Installations]:
    """Installs the service; it does not outlive its test."""
    installations = Installations(node, tmp_path)
    try:
        yield installations
    finally:
        await installations.close()


@pytest.fixture
async def buildkit(installations: Installations) -> Installation:
    """The service with BuildKit, as most tests want it."""
    return await installations.make("buildkit")
