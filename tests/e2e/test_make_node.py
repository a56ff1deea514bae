"""`make node` as a person has it: the commands that it prints are typed as they are, and Ctrl-C leaves nothing."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from node.node import Node

from tests.integration.service import PATIENCE, ROOT, clean_environ

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

LAST_LINE = "Ctrl-C ends it and removes everything."


@asynccontextmanager
async def looked_at_by_hand(folder: Path) -> AsyncIterator[list[str]]:
    """What it has said when it is up; ended by Ctrl-C. All of it is below one folder, which is empty then."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "scripts/whole_chain.py",
        cwd=ROOT,
        env=clean_environ({"TMPDIR": str(folder)}),
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        lines: list[str] = []
        while not lines or lines[-1] != LAST_LINE:
            line = await process.stdout.readline()
            assert line, lines
            lines.append(line.decode().rstrip("\n"))
        yield lines
    finally:
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(PATIENCE):
            code = await process.wait()
    left = await asyncio.to_thread(os.listdir, folder)
    assert (code, left) == (0, [])


async def test_the_three_commands(tmp_path: Path, node: Node) -> None:
    """An event, its Job, its image's manifest: in a shell, word for word."""
    folder = tmp_path / "t"
    folder.mkdir()
    async with looked_at_by_hand(folder) as lines:
        start = lines.index("In another terminal:") + 1
        commands = "\n".join(lines[start:-1])
        shell = await asyncio.create_subprocess_exec(
            "bash", "-euc", commands, cwd=ROOT, env=clean_environ(), stdout=subprocess.PIPE
        )
        said = (await shell.communicate())[0].decode()
    assert shell.returncode == 0, said
    before, _, manifest = said.partition("\n{")
    assert "outcomes: 1 x created" in before
    assert "job.batch/kaniko-job-acme-hello condition met" in before
    assert [layer["size"] > 0 for layer in json.loads("{" + manifest)["layers"]] == [True] * 3
    node.check_alive()
