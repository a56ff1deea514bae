"""The subprocesses: each measured thing has an interpreter of its own."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

PATIENCE = 120.0
"""Seconds until a child that should have ended, or be ready, is given up."""


class ChildError(Exception):
    """A child failed; the end of its log says why."""

    def __init__(self, name: str, log: IO[str]) -> None:
        log.seek(0)
        super().__init__(f"{name} failed; its log ends with:\n{log.read()[-3000:]}")


class Server(NamedTuple):
    """A child that serves until it is told to stop."""

    process: subprocess.Popen[str]
    log: Path

    def first_line(self) -> str:
        """The first thing that it prints."""
        if self.process.stdout is None:
            raise TypeError
        return self.process.stdout.readline().strip()

    def wait_for(self, word: str) -> None:
        """Return once its log says ``word``."""
        deadline = time.monotonic() + PATIENCE
        while word not in self.log.read_text():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise ChildError(word, self.log.open())
            time.sleep(0.05)


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours without what would set the service's settings, so that the defaults are measured."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BUILDER_") and name != "PORT"}
    return kept | dict(more or {})


def measure(module: str, *args: object, environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run ``python -m benchmarks.<module>`` to its end; what it said with ``report``."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, args)]
    with tempfile.TemporaryFile("w+") as log:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment(environ),
            timeout=PATIENCE,
            check=False,
        )
        if done.returncode != 0:
            raise ChildError(module, log)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def report(figures: Mapping[str, object]) -> None:
    """What a child has to say to ``measure``."""
    print(json.dumps(figures), flush=True)


@contextmanager
def serving(
    module: str, *args: str, core: int | None = None, environ: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Run ``python -m <module>`` for the length of the block, on one core if one is given.

    Its log goes to a file: like the pipe of a container, that costs it a system call for each line.
    """
    command: Sequence[str] = [sys.executable, "-m", module, *args]
    if core is not None:
        command = ["taskset", "--cpu-list", str(core), *command]
    with tempfile.NamedTemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment(environ))
        try:
            yield Server(process, Path(log.name))
        finally:
            process.terminate()
            process.communicate(timeout=PATIENCE)


def resident(pid: int | str = "self") -> int:
    """The resident set of a process, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    msg = f"process {pid} has no resident set"
    raise LookupError(msg)


def cpu(pid: int) -> float:
    """User and system time of a process so far, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
