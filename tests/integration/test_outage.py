"""The API server is away while events come in: nothing is lost, nothing is spent, and all goes on by itself.

KNATIVE_LAMBDA_BUILDER_TEST_OUTAGE=60 scripts/test tests/integration/test_outage.py
"""

import asyncio
import os
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from control_plane import ControlPlane

from tests.contract.harness import eventually
from tests.integration.clocks import Clock, skip_without_clocks
from tests.integration.messages import Document, build_of
from tests.integration.namespace import Namespace
from tests.integration.service import Service, Services
from tests.integration.test_failures import letters

SECONDS = float(os.environ.get("KNATIVE_LAMBDA_BUILDER_TEST_OUTAGE", "3"))

pytestmark = [pytest.mark.integration, pytest.mark.timeout(SECONDS + 180)]

QUEUE = 120
BEFORE, MORE = 100, 40
POLICY: dict[str, Any] = {
    "asyncJobCreator": {"maxRetries": 0, "workerCount": 4, "maxQueueSize": QUEUE},
    "intake": {"slotWait": "10ms"},
    "kubernetes": {"requestTimeout": "8s"},
}
"""Whatever counts against an event ends it at once, so none may count."""

Act = Callable[[ControlPlane], None]


async def one_after_the_other(service: Service, events: list[Document]) -> Counter[int]:
    """Send; the answers' statuses."""
    return Counter([status for event in events for status in await service.statuses(event)])


async def sit_through(service: Service, clock: Clock) -> list[tuple[int, int]]:
    """The outage, with a time of day that leaps; what the two health probes say meanwhile."""
    said: list[tuple[int, int]] = []
    for step in ("+36h", "-20m", "+1h", "+0"):
        clock.set(step)
        live = await service.http.get("/health/live")
        said.append((await service.readiness(), live.status_code))
        await asyncio.sleep(SECONDS / 4)
    return said


def seconds_to_the_last_job(service: Service) -> float:
    """From the log: how long after the API server's return."""
    (back,) = service.logged("api_server_back")
    ends = [line["time"] for line in service.lines() if line["event"] in {"job_created", "job_adopted"}]
    return (datetime.fromisoformat(max(ends)) - datetime.fromisoformat(back["time"])).total_seconds()


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        pytest.param(ControlPlane.stop_apiserver, ControlPlane.start_apiserver, id="killed"),
        pytest.param(ControlPlane.freeze_apiserver, ControlPlane.thaw_apiserver, id="frozen"),
    ],
)
async def test_an_outage_with_a_full_queue(
    namespace_apart: Namespace,
    services: Services,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    begin: Act,
    end: Act,
) -> None:
    """100 events wait and more come: the queue fills, then 429. Workers pause behind one probe. A leap changes nothing."""
    skip_without_clocks()
    namespace, plane, clock = namespace_apart, namespace_apart.plane, Clock(tmp_path / "clock")
    service = services.spawn(namespace, environ=clock.environ, **POLICY)
    await service.listening()
    events = [build_of(f"parser{number}") for number in range(BEFORE + MORE)]

    await asyncio.to_thread(begin, plane)
    try:
        first = await one_after_the_other(service, events[:BEFORE])
        await eventually(service.readiness, lambda status: status == 503, within=60)
        more = await one_after_the_other(service, events[BEFORE:])
        said = await sit_through(service, clock)
        during = await service.stats()
    finally:
        await asyncio.to_thread(end, plane)
    accepted = first[202] + more[202]
    stats = await service.all_done(accepted, within=60)

    # The queue, and what the workers had in their hands.
    assert (first, QUEUE <= accepted <= QUEUE + 4, more[202] + more[429]) == ({202: BEFORE}, True, MORE)
    assert said == [(503, 200)] * 4
    assert during["api_server"]["up"] is False
    assert sum(during["api_calls"]["create"].values()) <= 2 * 4, "each worker finds out at most twice"
    assert (stats["retries"], stats["failures"], await letters(service)) == (0, {}, [])
    assert stats["outcomes"]["created"] + stats["outcomes"]["adopted"] == accepted == len(await namespace.jobs())
    assert len(service.logged("api_server_unreachable")) == len(service.logged("api_server_back")) == 1
    assert service.logged("item_waits") == []
    probes = sum(during["api_calls"]["probe"].values())
    with capsys.disabled():
        print(f"\n{SECONDS:g} s: {accepted} accepted, {more[429]} x 429, {probes} probes, the last Job "  # noqa: T201
              f"{seconds_to_the_last_job(service):.1f} s after the return, {dict(stats['outcomes'])}")  # fmt: skip
