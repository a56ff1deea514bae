"""The load: wrk on a core of its own, keep-alive connections, an event with a new id in each request."""

import json
import os
import resource
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import NamedTuple
from urllib.request import Request, urlopen

from benchmarks import example
from benchmarks.children import cpu

PLACE = "@" * 12
"""What the script replaces by an id of the same length."""

CONNECTIONS = 64
SCRIPT = Path(__file__).with_name("distinct_ids.lua")
_runs = count()


@dataclass(frozen=True, slots=True)
class Load:
    """One run. Latencies in milliseconds, at full load; what wrk and the server had of their cores, 1.0 is all.

    ``stolen`` is what the machine's host gave to others of both cores together.
    """

    per_second: float
    p50: float
    p99: float
    generator: float
    server: float
    stolen: float


class Target(NamedTuple):
    """A server that is to be loaded."""

    url: str
    pid: int


class LoadError(Exception):
    """The load could not be made, or was not answered as it should be."""


def check_tools() -> None:
    """Raise LoadError if a program is missing."""
    for name in ("wrk", "taskset"):
        if shutil.which(name) is None:
            msg = f"{name} is not on the PATH; on Debian: apt-get install wrk util-linux"
            raise LoadError(msg)


def check_answer(server: Target) -> None:
    """Raise LoadError unless the server answers the example as ours does, so that all do the same work."""
    asked = Request(server.url, example.body("c"), example.headers("check"), method="POST")  # noqa: S310 -- our own server
    with urlopen(asked, timeout=30) as answer:  # noqa: S310 -- as above
        got = answer.status, answer.headers.get_content_type(), answer.read()
    if got != (202, "application/json", b'{"status":"queued"}'):
        msg = f"{server.url} answers {got}"
        raise LoadError(msg)


def run(server: Target, *, core: int, seconds: int = 1, connections: int = CONNECTIONS) -> Load:
    """Load the server for some seconds. Raises LoadError if any answer is missing or no 2xx."""
    with tempfile.NamedTemporaryFile("w") as request:
        request.write(example.request(PLACE))
        request.flush()
        command = [
            *("taskset", "--cpu-list", str(core), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s"),
            *("-s", str(SCRIPT), server.url, "--", request.name, f"{next(_runs):04d}"),
        ]
        before = _children_cpu(), cpu(server.pid), _stolen()
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        after = _children_cpu(), cpu(server.pid), _stolen()
    figures = json.loads(printed.splitlines()[-1])
    if figures["errors"] or not figures["requests"]:
        msg = f"{server.url}: {figures['errors']} of {figures['requests']} requests were not answered with a 2xx"
        raise LoadError(msg)
    shares = ((end - start) / figures["seconds"] for start, end in zip(before, after, strict=True))
    return Load(figures["requests"] / figures["seconds"], figures["p50"], figures["p99"], *shares)


def _children_cpu() -> float:
    """Processor time of the children that have ended: only wrk ends between two looks."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _stolen() -> float:
    """Seconds that the cores would have run for us, and ran for another virtual machine (proc(5), /proc/stat)."""
    with Path("/proc/stat").open() as stat:
        return int(stat.readline().split()[8]) / os.sysconf("SC_CLK_TCK")
