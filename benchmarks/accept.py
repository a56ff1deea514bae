"""How many events one core takes in, beside what others do with one core."""

import os
from contextlib import ExitStack
from statistics import median

from benchmarks import load
from benchmarks.children import serving
from benchmarks.table import Bound, Row, ratios

SECONDS = 2
WARM_UP = 1
SERVERS = {"ours": "accept_ours", "fastapi": "accept_fastapi", "aiohttp": "accept_aiohttp"}


def rows(rounds: int) -> list[Row]:
    """Ours against FastAPI and against bare aiohttp."""
    load.check_tools()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) == 1:
        msg = "accept needs two cores: one for the server, one for the load"
        raise load.LoadError(msg)
    measured = _alternate(cores[0], cores[1], rounds)
    speeds = {name: [one.per_second for one in loads] for name, loads in measured.items()}
    for name, loads in measured.items():
        print(
            f"  {name}: {median(speeds[name]):,.0f}/s, p50 {median(one.p50 for one in loads):.1f} ms, "
            f"p99 {median(one.p99 for one in loads):.1f} ms; "
            f"wrk used {max(one.generator for one in loads):.0%} of its core"
        )
    return [
        _row("accept: FastAPI + uvicorn + CloudEvents SDK", speeds["ours"], speeds["fastapi"], 2.0),
        _row("accept: bare aiohttp, one fused parse", speeds["ours"], speeds["aiohttp"], 0.8),
    ]


def _alternate(server_core: int, load_core: int, rounds: int) -> dict[str, list[load.Load]]:
    """All servers stand ready the whole time; one of them is loaded at any moment."""
    measured: dict[str, list[load.Load]] = {name: [] for name in SERVERS}
    with ExitStack() as stack:
        urls = {
            name: stack.enter_context(serving(f"benchmarks.{module}", core=server_core)).first_line()
            for name, module in SERVERS.items()
        }
        for url in urls.values():
            load.check_answer(url)
            load.run(url, core=load_core, seconds=WARM_UP)
        for _ in range(rounds):
            for name, url in urls.items():
                measured[name].append(load.run(url, core=load_core, seconds=SECONDS))
    return measured


def _row(what: str, ours: list[float], peer: list[float], bound: float) -> Row:
    return Row(
        what, ratios(ours, peer), Bound("≥", bound), ours=f"{median(ours):,.0f}/s", peer=f"{median(peer):,.0f}/s"
    )
