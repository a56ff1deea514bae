"""Whether an event costs more when many are queued already."""

from statistics import median

from benchmarks.children import measure
from benchmarks.table import Bound, Row, ratios

SMALLEST, *LARGER = ("10", "1000", "100000")
FLAT = 1.25
"""What "flat" allows: the heap is a few levels deeper, and the items are further apart in memory."""


def rows(rounds: int) -> list[Row]:
    """Accept and dequeue with 10^3 and 10^5 items queued, each against 10."""
    runs = [measure("growth_queue") for _ in range(rounds)]
    return [
        _row(what, size, [run[size][column] for run in runs], [run[SMALLEST][column] for run in runs])
        for column, what in enumerate(("accept", "dequeue"))
        for size in LARGER
    ]


def _row(what: str, size: str, large: list[float], small: list[float]) -> Row:
    return Row(
        f"{what} with {int(size):,} queued, against {SMALLEST}",
        ratios(large, small),
        Bound("≤", FLAT),
        ours=f"{median(large) * 1e6:.1f} µs",
        peer=f"{median(small) * 1e6:.1f} µs",
    )
