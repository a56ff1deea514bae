"""How many events one core takes in, beside what others do with one core."""

import os
import tempfile
from contextlib import ExitStack
from statistics import median

from benchmarks import load
from benchmarks.children import serving
from benchmarks.table import Bound, Row, ratios

SERVERS = {"fastapi": "accept_fastapi", "on disk": "accept_ours", "ours": "accept_ours", "aiohttp": "accept_aiohttp"}
"""In this order, so that most of those who are compared run one after the other: the speed of a shared machine comes
and goes within seconds."""

SATURATED = 0.95
"""A server with enough to do that had less of its core was kept from it by somebody else."""

STOLEN = 0.02
"""More than this of both cores, and it was another virtual machine."""

TRIES = 6
"""Runs for one figure, at the most."""


def rows(rounds: int) -> list[Row]:
    """Ours against FastAPI and against bare aiohttp."""
    load.check_tools()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) == 1:
        msg = "accept needs two cores: one for the server, one for the load"
        raise load.LoadError(msg)
    measured = _alternate(cores[0], cores[1], rounds)
    for name, loads in measured.items():
        print(f"  {name}: {_summary(name, loads)}")
    speeds = {name: [one.per_second for one in loads] for name, loads in measured.items()}
    return [
        _row("accept: FastAPI + uvicorn + CloudEvents SDK", speeds["ours"], speeds["fastapi"], 2.0),
        _row("accept: bare aiohttp, one fused parse", speeds["ours"], speeds["aiohttp"], 0.8),
        _row("accept, journal on disk: FastAPI", speeds["on disk"], speeds["fastapi"], 2.0),
        _row("accept, journal on disk: in memory", speeds["on disk"], speeds["ours"], 0.75),
    ]


def _alternate(server_core: int, load_core: int, rounds: int) -> dict[str, list[load.Load]]:
    """All servers stand ready the whole time; one of them is loaded at any moment."""
    measured: dict[str, list[load.Load]] = {name: [] for name in SERVERS}
    with ExitStack() as stack:
        targets = {}
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        for name, module in SERVERS.items():
            args = [f"{folder}/journal.sqlite3"] if name == "on disk" else []
            server = stack.enter_context(serving(f"benchmarks.{module}", *args, core=server_core))
            targets[name] = load.Target(server.first_line(), server.process.pid)
            load.check_answer(targets[name])
            load.run(targets[name], core=load_core)
        for _ in range(rounds):
            for name, target in targets.items():
                measured[name].append(_undisturbed(name, target, load_core))
    return measured


def _undisturbed(name: str, target: load.Target, core: int) -> load.Load:
    """The first run that nobody disturbed, else the one that was disturbed the least."""
    runs: list[load.Load] = []
    while len(runs) < TRIES and (not runs or _disturbance(name, runs[-1]) > 0):
        runs.append(load.run(target, core=core))
    return min(runs, key=lambda one: _disturbance(name, one))


def _disturbance(name: str, one: load.Load) -> float:
    """How much of a core was missing; nothing below what is usual. Who waits for the disk leaves some by itself."""
    kept_away = 0.0 if name == "on disk" else max(0.0, SATURATED - one.server)
    return kept_away + max(0.0, one.stolen - STOLEN)


def _summary(name: str, loads: list[load.Load]) -> str:
    undisturbed = sum(_disturbance(name, one) == 0 for one in loads)
    cost = median(one.server / one.per_second for one in loads) * 1e6
    return (
        f"{median(one.per_second for one in loads):,.0f}/s, {cost:.0f} µs of CPU per event, "
        f"p50 {median(one.p50 for one in loads):.1f} ms, p99 {median(one.p99 for one in loads):.1f} ms; "
        f"{undisturbed} of {len(loads)} rounds undisturbed; "
        f"wrk used {max(one.generator for one in loads):.0%} of its core"
    )


def _row(what: str, ours: list[float], peer: list[float], bound: float) -> Row:
    return Row(
        what, ratios(ours, peer), Bound("≥", bound), ours=f"{median(ours):,.0f}/s", peer=f"{median(peer):,.0f}/s"
    )
