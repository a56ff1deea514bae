"""The load: wrk on a core of its own, keep-alive connections, an event with a new id in each request."""

import json
import resource
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from urllib.request import Request, urlopen

from benchmarks import example

PLACE = "@" * 12
"""What the script replaces by an id of the same length."""

SCRIPT = Path(__file__).with_name("distinct_ids.lua")
_runs = count()


@dataclass(frozen=True, slots=True)
class Load:
    """One run. Latencies in milliseconds, at full load; ``generator`` is wrk's share of its core."""

    per_second: float
    p50: float
    p99: float
    generator: float


class LoadError(Exception):
    """The load could not be made, or was not answered as it should be."""


def check_tools() -> None:
    """Raise LoadError if a program is missing."""
    for name in ("wrk", "taskset"):
        if shutil.which(name) is None:
            msg = f"{name} is not on the PATH; on Debian: apt-get install wrk util-linux"
            raise LoadError(msg)


def check_answer(url: str) -> None:
    """Raise LoadError unless the server answers the example as ours does, so that all do the same work."""
    asked = Request(url, example.body("c"), example.headers("check"), method="POST")  # noqa: S310 -- our own server
    with urlopen(asked, timeout=30) as answer:  # noqa: S310 -- as above
        got = answer.status, answer.headers.get_content_type(), answer.read()
    if got != (202, "application/json", b'{"status":"queued"}'):
        msg = f"{url} answers {got}"
        raise LoadError(msg)


def run(url: str, *, core: int, seconds: float, connections: int = 64) -> Load:
    """Load the server for some seconds. Raises LoadError if any answer is missing or no 2xx."""
    with tempfile.NamedTemporaryFile("w") as request:
        request.write(example.request(PLACE))
        request.flush()
        command = [
            "taskset", "--cpu-list", str(core),
            "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(SCRIPT), url,
            "--", request.name, f"{next(_runs):04d}",
        ]  # fmt: skip
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    figures = json.loads(printed.splitlines()[-1])
    if figures["errors"] or not figures["requests"]:
        msg = f"{url}: {figures['errors']} of {figures['requests']} requests were not answered with a 2xx"
        raise LoadError(msg)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Load(
        per_second=figures["requests"] / figures["seconds"],
        p50=figures["p50"],
        p99=figures["p99"],
        generator=spent / figures["seconds"],
    )
