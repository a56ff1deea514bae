"""What keeping events on disk costs: the wait for it, a restart with work left over, and a million known identities."""

import json
import os
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import NamedTuple

from control_plane import ControlPlane

from benchmarks import load
from benchmarks.children import measure, resident, serving
from benchmarks.memory import SETTLE
from benchmarks.table import Bound, Row, ratios

UNFINISHED = 10_000
SEEN = 1_000_000
WRITES, KIB = 400, 1024
NOBODY = "http://127.0.0.1:9"


def rows(rounds: int, cluster: ControlPlane) -> list[Row]:
    """One connection; a restart; many known identities."""
    return [*_one_connection(3 * rounds), *_restart(rounds, cluster), *_known(rounds)]


def _one_connection(rounds: int) -> list[Row]:
    """The answer's latency, beside what the disk and the rest of the way to the answer take."""
    load.check_tools()
    cores = sorted(os.sched_getaffinity(0))
    quickest, syncs, slowest, expected = [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        kept = serving("benchmarks.accept_ours", f"{folder}/journal.sqlite3", core=cores[0])
        with kept as on_disk, serving("benchmarks.accept_ours", core=cores[0]) as in_memory:
            targets = [load.Target(server.first_line(), server.process.pid) for server in (on_disk, in_memory)]
            for target in targets:
                load.run(target, core=cores[-1], connections=1)
            for _ in range(rounds):
                disk, memory = (load.run(target, core=cores[-1], connections=1) for target in targets)
                syncs.append(_fdatasync(Path(folder, "probe"), core=cores[0]))
                quickest.append(disk.p50)
                slowest.append(disk.p99)
                expected.append(memory.p50 + syncs[-1])
    peer = f"{median(expected):.2f} ms, {median(syncs):.2f} of it the disk"
    ours = f"{median(quickest):.2f} ms"
    return [
        Row("one connection, p50: in memory + fdatasync", ratios(quickest, expected), Bound("≤", 1.5), "x", ours, peer),
        Row("one connection, p99", slowest, Bound("<", 5), "ms"),
    ]


def _fdatasync(path: Path, core: int) -> float:
    """The median of milliseconds that it takes to have 1 KiB more in a file on the disk, from the server's core."""
    took = []
    everywhere = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    with path.open("wb", buffering=0) as file:
        for _ in range(WRITES):
            file.write(bytes(KIB))
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append((time.perf_counter() - began) * 1000)
    os.sched_setaffinity(0, everywhere)
    return median(took)


class _Start(NamedTuple):
    """Seconds from the process's start, and bytes of its resident set in the end."""

    first_job: float
    all_queued: float
    resident: int


def _restart(rounds: int, cluster: ControlPlane) -> list[Row]:
    first, queued, each = [], [], []
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            left, none = f"{folder}/left.sqlite3", f"{folder}/none.sqlite3"
            measure("journal_fill", UNFINISHED, left, f"r{number}-")
            measure("journal_fill", 0, none, "")
            away = {"KUBECONFIG": _nowhere(cluster, Path(folder, "away"))}
            full = _start(left, away, "unfinished_work_brought_back")
            idle = _start(none, away, "listening")
            each.append((full.resident - idle.resident) / UNFINISHED)
            start = _start(left, {"KUBECONFIG": str(cluster.kubeconfig)}, "unfinished_work_brought_back", "job_created")
            first.append(start.first_job)
            queued.append(start.all_queued)
    what = f"restart with {UNFINISHED:,} unfinished"
    return [
        Row(f"{what}: first Job", first, Bound("≤", 2), "s"),
        Row(f"{what}: all queued", queued, Bound("≤", 5), "s"),
        Row(f"{what}: memory of each", each, Bound("≤", 2048), "B"),
    ]


def _start(journal: str, environ: dict[str, str], *until: str) -> _Start:
    """One service, from its start until its log has said all of these."""
    settings = {
        "BUILDER_JOURNAL__PATH": journal,
        "BUILDER_KANIKO__REGISTRY": "registry.example.com",
        "BUILDER_ASYNC_JOB_CREATOR__MAX_QUEUE_SIZE": str(2 * UNFINISHED),
    }
    began = time.time()
    with serving("builder", "serve", "--host", "127.0.0.1", "--port", "0", environ=environ | settings) as service:
        for word in until:
            service.wait_for(f'"{word}"')
        time.sleep(SETTLE)
        said = service.log.read_text().splitlines()
        weight = resident(service.process.pid)
        service.process.kill()  # what it has is not to be built
    times: dict[str, float] = {}
    for line in said:
        entry = json.loads(line)
        times.setdefault(entry["event"], datetime.fromisoformat(entry["time"]).timestamp() - began)
    return _Start(times.get("job_created", 0.0), times.get("unfinished_work_brought_back", 0.0), weight)


def _nowhere(cluster: ControlPlane, path: Path) -> str:
    """A kubeconfig for a server that is not there: everything is queued, and nothing is built."""
    path.write_text(cluster.kubeconfig.read_text().replace(cluster.url, NOBODY))
    return str(path)


def _known(rounds: int) -> list[Row]:
    runs = [measure("journal_known", SEEN) for _ in range(rounds)]
    many: Sequence[float] = [run["many"] for run in runs]
    none: Sequence[float] = [run["none"] for run in runs]
    what = f"{SEEN:,} known identities"
    return [
        Row(
            f"accept with {what}, against none",
            ratios(many, none),
            Bound("≥", 0.9),
            ours=f"{median(many):,.0f}/s",
            peer=f"{median(none):,.0f}/s",
        ),
        Row(f"{what}: the file, for each", [run["bytes"] for run in runs], Bound("<", 200), "B"),
    ]
