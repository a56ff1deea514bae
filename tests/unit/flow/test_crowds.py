"""Thousands that wait for builds to end are no storm of reads."""

import asyncio
import random
from collections import Counter
from datetime import timedelta

import pytest

from builder.adapters.memory_cluster import MemoryCluster
from builder.flow.items import Wait
from builder.flow.verdicts import LOOKS_PER_SECOND
from builder.models import Manifest
from builder.settings import Memory
from tests import building
from tests.flow_parts import Flow

pytestmark = pytest.mark.looptime

CROWD = 2000
LATER = building.NOON + timedelta(seconds=1)


class Watched(MemoryCluster):
    """Builds take for ever, and reads are counted by the second."""

    def __init__(self) -> None:
        super().__init__(Memory.model_validate({"buildTime": "100h"}))
        self.reads: Counter[int] = Counter()

    async def get(self, name: str) -> Manifest | None:
        self.reads[int(asyncio.get_running_loop().time())] += 1
        return await super().get(name)


async def test_all_that_wait_for_builds(request: pytest.FixtureRequest) -> None:
    """They all come in one moment, and yet never look all in one moment."""
    cluster = Watched()
    request.addfinalizer(cluster.close)
    chance = random.Random(6)  # noqa: S311 -- to be repeated, not to be secret
    async with Flow(cluster, building.settings(asyncJobCreator={"maxQueueSize": CROWD}), draw=chance.random) as flow:
        for round_, time in (("first", building.NOON), ("second", LATER)):
            for number in range(CROWD):
                await flow.intake.offer(building.event(f"{round_}-{number}", target=("acme", f"p{number}"), time=time))
            await asyncio.sleep(1)
        assert flow.pool.room.waiting[Wait.ACTIVE_BUILD] == CROWD
        cluster.reads.clear()
        await asyncio.sleep(300)
    assert 0.7 < cluster.reads.total() / 300 / LOOKS_PER_SECOND < 1.3
    assert max(cluster.reads.values()) < 5 * LOOKS_PER_SECOND
