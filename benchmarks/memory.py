"""What the service weighs: resident sets, each of a fresh process."""

import tempfile
import time
from statistics import median

from control_plane import ControlPlane

from benchmarks.children import measure, resident, serving
from benchmarks.table import Bound, Row

MIB = 2**20
QUEUED = 100_000
SETTLE = 1.0
"""Seconds between a service's start and the look at it."""


def rows(rounds: int, cluster: ControlPlane) -> list[Row]:
    """Idle on either cluster, and per queued event."""
    kubernetes = {"KUBECONFIG": str(cluster.kubeconfig), "BUILDER_KANIKO__REGISTRY": "registry.example.com"}
    embedded, real, imports, queued = [], [], [], []
    for _ in range(rounds):
        embedded.append(_idle({"BUILDER_CLUSTER": "memory"}))
        real.append(_idle(kubernetes))
        imports.append(measure("memory_imports")["resident"] / MIB)
        with tempfile.TemporaryDirectory() as folder:
            queued.append(measure("memory_queued", QUEUED, f"{folder}/journal.sqlite3")["bytes"])
    above = [mine - other for mine, other in zip(real, imports, strict=True)]
    return [
        Row("idle, embedded cluster", embedded, Bound("<", 64), "MiB"),
        Row(
            "idle, real cluster, above its imports",
            above,
            Bound("≤", 20),
            "MiB",
            ours=f"{median(real):.0f} MiB",
            peer=f"{median(imports):.0f} MiB",
        ),
        Row(f"per queued event, of {QUEUED:,}", queued, Bound("<", 2048), "B"),
    ]


def _idle(environ: dict[str, str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        of_its_own = {"BUILDER_JOURNAL__PATH": f"{folder}/journal.sqlite3"}
        with serving("builder", "serve", "--host", "127.0.0.1", "--port", "0", environ=environ | of_its_own) as service:
            service.wait_for("listening")
            time.sleep(SETTLE)
            return resident(service.process.pid) / MIB
