"""What tracing costs who has not asked for it."""

from statistics import median

from benchmarks.children import measure
from benchmarks.table import Bound, Row, ratios

NOTHING = 1.03
"""What "nothing" allows: two runs of the same code differ by as much."""


def rows(rounds: int) -> list[Row]:
    """Our workers with tracing off, against the same with the calls for it taken out."""
    runs = [measure("traces_off") for _ in range(rounds)]
    ours, peer = ([run[side] for run in runs] for side in ("off", "absent"))
    return [
        Row(
            "a worker's CPU per event, tracing off: without it",
            ratios(ours, peer),
            Bound("≤", NOTHING),
            ours=f"{median(ours) * 1e6:.1f} µs",
            peer=f"{median(peer) * 1e6:.1f} µs",
        )
    ]
