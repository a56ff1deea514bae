"""How fast the workers make Jobs in a real API server, and at what cost, beside a loop that does nothing else."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from control_plane import ControlPlane

from benchmarks.children import measure
from benchmarks.table import Bound, Row, ratios

COUNTS = {1: 250, 5: 400, 20: 400}
"""Jobs of one run, by the number of workers: about a second each."""

SIDES = ("jobs_ours", "jobs_bare")


def rows(rounds: int, cluster: ControlPlane) -> list[Row]:
    """For each number of workers: throughput, and processor time per Job."""
    _run(cluster, "jobs_ours", 5, 200)  # the first Jobs of a new API server are slow
    measured: dict[tuple[str, int], list[dict[str, Any]]] = {(side, n): [] for n in COUNTS for side in SIDES}
    for number in range(rounds):
        # Whoever comes second meets a server that is still busy with the first one's Jobs: take turns.
        for side in SIDES if number % 2 else reversed(SIDES):
            for workers, count in COUNTS.items():
                measured[side, workers].append(_run(cluster, side, workers, count))
    return [
        *(_speed_row(workers, *(measured[side, workers] for side in SIDES)) for workers in COUNTS),
        *(_cpu_row(workers, *(measured[side, workers] for side in SIDES)) for workers in COUNTS),
    ]


def _run(cluster: ControlPlane, side: str, workers: int, count: int) -> dict[str, Any]:
    namespace = cluster.create_namespace("bench")
    figures = measure(side, namespace, workers, count, environ={"KUBECONFIG": str(cluster.kubeconfig)})
    if figures["jobs"] != count:
        msg = f"{side} made {figures['jobs']} of {count} Jobs"
        raise ValueError(msg)
    return figures


def _speed_row(workers: int, ours: Sequence[dict[str, Any]], bare: Sequence[dict[str, Any]]) -> Row:
    mine, other = ([one["jobs"] / one["seconds"] for one in side] for side in (ours, bare))
    return Row(
        f"Jobs per second, {workers} at a time",
        ratios(mine, other),
        Bound("≥", 0.9),
        ours=f"{median(mine):,.0f}/s",
        peer=f"{median(other):,.0f}/s",
    )


def _cpu_row(workers: int, ours: Sequence[dict[str, Any]], bare: Sequence[dict[str, Any]]) -> Row:
    mine, other = ([one["cpu"] / one["jobs"] * 1e3 for one in side] for side in (ours, bare))
    return Row(
        f"CPU per Job, {workers} at a time",
        ratios(mine, other),
        Bound("<", 1.0),
        ours=f"{median(mine):.2f} ms",
        peer=f"{median(other):.2f} ms",
    )
