"""Two replicas that get the same events, without a word between them: the Job's name is their only lock."""

import asyncio
from collections import Counter

import pytest

from tests.integration.messages import build_of
from tests.integration.namespace import Namespace
from tests.integration.service import Services

pytestmark = pytest.mark.integration

EVENTS = 200


async def test_two_processes_one_job_for_each_event(namespace_apart: Namespace, services: Services) -> None:
    """Of 200 events sent to both there are 200 Jobs; each event was created by one and adopted by the other."""
    namespace = namespace_apart
    policy = {"maxQueueSize": EVENTS}
    both = await asyncio.gather(*(services.start(namespace, asyncJobCreator=policy) for _ in range(2)))
    events = [build_of(f"parser{number}") for number in range(EVENTS)]

    statuses = await asyncio.gather(*(service.statuses(*events) for service in both))
    stats = await asyncio.gather(*(service.all_done(EVENTS) for service in both))

    assert statuses == [[202] * EVENTS] * 2
    assert sorted(await namespace.jobs()) == sorted(f"kaniko-job-acme-parser{number}" for number in range(EVENTS))
    results = [await asyncio.gather(*(service.result(event["id"]) for event in events)) for service in both]
    assert [result["image"] for result in results[0]] == [result["image"] for result in results[1]]
    outcomes = Counter(tuple(sorted(result["status"] for result in pair)) for pair in zip(*results, strict=True))
    assert outcomes == {("adopted", "created"): EVENTS}
    assert sum(one["outcomes"]["created"] for one in stats) == EVENTS
    assert sum(one["outcomes"]["adopted"] for one in stats) == EVENTS
    assert [one["conflicts"].get("adopt", 0) for one in stats] == [one["outcomes"]["adopted"] for one in stats]
