"""Commands in the tests' own process: a new interpreter for each takes seconds on a busy machine."""

import asyncio
import contextlib
import io
import os
from collections.abc import Mapping
from typing import NamedTuple
from unittest.mock import patch

from builder.cli import main
from tests.integration.service import clean_environ


class Done(NamedTuple):
    """As ``subprocess.run`` has it."""

    returncode: int
    stdout: str
    stderr: str


async def command(*words: str, environ: Mapping[str, str] | None = None) -> Done:
    """Run ``knative-lambda-builder`` with these words, in a thread, for it has an event loop of its own."""
    out, err = io.StringIO(), io.StringIO()

    def to_its_end() -> int:
        try:
            return main(words)
        except SystemExit as exc:  # argparse's
            return int(exc.code or 0)

    replaced = patch.dict(os.environ, clean_environ(environ), clear=True)
    with replaced, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = await asyncio.to_thread(to_its_end)
    return Done(code, out.getvalue(), err.getvalue())
