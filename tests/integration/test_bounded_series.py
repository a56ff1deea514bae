"""What senders and the API server choose never becomes a series, however much of it comes."""

import io
from random import Random

import pytest
from prometheus_client.parser import text_string_to_metric_families

from builder import log
from builder.errors import AlreadyExists, Conflict, Denied, EventRejected, NotNow, QuotaExceeded, Transient
from builder.metrics import Metrics
from builder.models import Event, Manifest
from builder.settings import Logging
from builder.stats import BrokerGauges, Gauges, Stats
from tests import building
from tests.contract.harness import eventually
from tests.flow_parts import Flow

pytestmark = pytest.mark.integration

EVENTS = 100_000
GAUGES = Gauges(0, 100, 0.0, 5, 0, {}, 0, True, 0, True, False, BrokerGauges())  # noqa: FBT003 -- as they come
TYPES = ("network.notifi.lambda.job.start", "io.knative.lambda.command.build.start")


class Whimsical:
    """An API server of many words."""

    def __init__(self, random: Random) -> None:
        self._random = random

    async def create(self, job: Manifest) -> None:
        word = f"{self._random.random()} {job['metadata']['name']}"
        if self._random.random() < 0.2:
            kind = self._random.choice([AlreadyExists, QuotaExceeded, Denied, Transient])
            raise kind(word, status=self._random.choice([400, 403, 418, 422]))

    async def get(self, name: str) -> Manifest | None:
        if self._random.random() < 0.1:
            raise Transient(name)
        return None

    async def delete(self, name: str, uid: str, *, foreground: bool) -> None:
        words = f"{name} {uid} {foreground}"
        raise Conflict(words)

    async def probe(self) -> None:
        pass


def series(stats: Stats) -> set[tuple[str, frozenset[tuple[str, str]]]]:
    """All that Prometheus would keep."""
    body, _ = Metrics(stats, lambda: GAUGES).render("")
    families = text_string_to_metric_families(body.decode())
    return {(sample.name, frozenset(sample.labels.items())) for family in families for sample in family.samples}


def any_event(random: Random, number: int) -> Event:
    """Mostly one that can be built."""
    third_party = f"t{random.randrange(10**6)}" if random.random() < 0.9 else "\N{ROCKET}"
    event = building.event(f"e{number}", (third_party, f"p{random.randrange(10**6)}"))
    kind = random.choice(TYPES) if random.random() < 0.9 else f"type.{random.random()}"
    return event._replace(type=kind, source=f"/{random.random()}", extensions={"traceparent": f"{random.random()}"})


@pytest.mark.timeout(1200)
async def test_a_hundred_thousand_events_and_not_a_series_more() -> None:
    """No two of them are alike in what a label could be made of."""
    log.configure(Logging(level="error", format="json"), io.StringIO(), for_good=False)
    random = Random(7)  # noqa: S311 -- for another try of the same
    known = building.settings(
        asyncJobCreator={"maxRetries": 1, "retryDelay": "1ms", "capacityTimeout": "1ms", "maxQueueSize": 200_000}
    )
    async with Flow(Whimsical(random), known) as flow:
        before = series(flow.stats)
        for number in range(EVENTS):
            try:
                await flow.intake.offer(any_event(random, number))
            except (EventRejected, NotNow):
                continue
        seen = flow.stats.accepted.total() + flow.stats.rejected.total() + flow.stats.refused.total()
        assert seen + flow.stats.duplicates.total() == EVENTS

        async def ended() -> int:
            return flow.stats.outcomes.total()

        await eventually(ended, lambda count: count > EVENTS // 10, 600)
        assert flow.stats.failures.total() > 100
        assert series(flow.stats) == before
