"""The phases of 004's migration: what a phase does not take is kept with the reason, and can be sent again."""

import pytest

from tests.unit.http.door import binary, numbered, problem_of, serving

DIRECT = {"source": "https://shop.example.com"}


async def test_both() -> None:
    """Phases 1 and 2, the default: each flow is counted by itself."""
    async with serving() as both:
        await both.deliver(binary(numbered(1)))
        await both.deliver(binary(numbered(2, DIRECT)))
        await both.work()
        stats = await both.get("/async-jobs/stats")
        assert stats["accepted"] == {"queue": 1, "direct": 1}
        assert {flow: ended["created"] for flow, ended in stats["ended"].items()} == {"queue": 1, "direct": 1}


@pytest.mark.parametrize(
    ("flows", "taken", "kept", "reason"),
    [("queue", {}, DIRECT, "direct-disabled"), ("direct", DIRECT, {}, "queue-disabled")],
)
async def test_one_flow_only(flows: str, taken: dict[str, str], kept: dict[str, str], reason: str) -> None:
    """The other is told so, and its event is a dead letter that a replay takes in spite of the phase."""
    async with serving(intake={"flows": flows}) as door:
        assert (await door.deliver(binary(numbered(1, taken)))).status_code == 202
        answer = await door.deliver(binary(numbered(2, kept)))
        assert answer.status_code == 403
        assert f"(setting intake.flows: {flows})" in problem_of(answer)["detail"]
        (letter,) = await door.letters()
        assert (letter["reason"], letter["event"]["id"]) == (reason, "e-2")
        assert (await door.get("/async-jobs/stats"))["rejected"][reason] == 1
        replayed = await door.client.post(f"/async-jobs/dead-letters/{letter['id']}/replay")
        assert replayed.status_code == 202
        await door.work()
        assert (await door.get("/async-jobs/c-2"))["status"] == "created"


async def test_what_is_wrong_comes_first() -> None:
    """A phase says nothing about an event that could never be built."""
    async with serving(intake={"flows": "queue"}) as door:
        answer = await door.deliver(binary(numbered(1, {**DIRECT, "data.priority": 0})))
        assert answer.status_code == 400


async def test_the_same_request_by_both_roads() -> None:
    """One event makes one Job, whichever way it comes, and however often."""
    async with serving() as door:
        for _ in range(2):
            await door.deliver(binary(numbered(1)))
        await door.work()
        assert (await door.get("/async-jobs/stats"))["outcomes"]["created"] == 1
