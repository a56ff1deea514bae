"""The end of an outage: noticed soon, however long it was, and then nobody waits for anything of his own."""

import asyncio
from itertools import pairwise

import pytest

from builder.errors import Transient, Unreachable
from builder.flow.outage import Outage
from builder.models import Manifest, Outcome
from tests import building
from tests.flow_parts import Flow, ScriptedCluster

pytestmark = pytest.mark.looptime

GONE = Unreachable("connection refused")


class Timed(ScriptedCluster):
    """Nobody is there; knows when it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.probe_error = GONE
        self.probed: list[float] = []

    async def probe(self) -> None:
        self.probed.append(asyncio.get_running_loop().time())
        await super().probe()


@pytest.mark.parametrize("luck", [0.0, 1.0])
async def test_the_pause_between_two_probes_stays_short(luck: float) -> None:
    """With the worst luck too: work goes on within 0.6 s of the return. Nor is it a storm."""
    cluster = Timed()
    outage = Outage(cluster, draw=lambda: luck)
    watch = asyncio.create_task(outage.watch())
    await outage.check()
    await asyncio.sleep(120)
    watch.cancel()
    pauses = [later - earlier for earlier, later in pairwise(cluster.probed[1:])]
    assert 0.09 < min(pauses) <= max(pauses) < 0.61


async def test_everybody_goes_on_at_once() -> None:
    """No item that met the outage has a back-off of its own to sit out: all are built before any time passes."""
    cluster = Timed()
    cluster.script = [GONE] * 5
    async with Flow(cluster, building.settings()) as flow:
        for number in range(100):
            await flow.intake.offer(building.event(f"e-{number}", target=("acme", f"p{number}")))
        await asyncio.sleep(60)
        assert (flow.outage.count, flow.stats.outcomes[Outcome.CREATED]) == (1, 0)
        cluster.probe_error = None
        await flow.outage.over()
        await asyncio.sleep(0.001)
        assert flow.stats.outcomes[Outcome.CREATED] == 100
        assert len(cluster.probed) < 60 / 0.3, "one probe at a time, for all"


class Frozen(Timed):
    """Takes connections and says nothing for five seconds: who had one gives up after eight, others after three."""

    async def create(self, job: Manifest) -> None:
        self.calls.append(("create", job["metadata"]["name"]))
        if len(self.calls) == 1:
            await asyncio.sleep(8)
            msg = "no answer within 8 s"
            raise Transient(msg)
        if self.probe_error is not None:
            await asyncio.sleep(3)
            raise GONE


async def test_a_call_that_outlives_the_outage_that_came_over_it() -> None:
    """It fails when the server is back and well: that is no failure of its item, nor another outage."""
    cluster = Frozen()
    async with Flow(cluster, building.settings(asyncJobCreator={"maxRetries": 0})) as flow:
        for number in range(2):
            await flow.intake.offer(building.event(f"e-{number}", target=("acme", f"p{number}")))
        await asyncio.sleep(5)
        assert flow.outage.count == 1
        cluster.probe_error = None
        await flow.outage.over()
        await asyncio.sleep(10)
        assert (flow.stats.outcomes[Outcome.CREATED], flow.stats.retries, flow.outage.count) == (2, 0, 1)
