"""What became of a request can be asked for an hour, and not for ever."""

from builder.flow.items import Done
from builder.flow.results import Results
from builder.models import Outcome
from tests import building
from tests.flow_parts import item


class Clock:
    """A clock that the test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def finished(results: Results, correlation_id: str) -> None:
    """A request that was created at once."""
    one = item(correlation_id)
    results.begin(one)
    results.finish(one, one.result(Done(Outcome.CREATED, image="r/i:t"), building.NOON, "job"))


def test_from_queued_to_created() -> None:
    """A request in flight shows its state, a finished one its outcome."""
    results = Results(3600, 10, Clock())
    one = item("e-1", priority=2)
    results.begin(one)
    assert results.get("e-1") == {
        "correlation_id": "e-1",
        "status": "queued",
        "message": None,
        "event": {"source": "network.notifi.kaniko-jobs", "id": "e-1"},
        "third_party_id": "acme",
        "parser_id": "parser1",
        "priority": 2,
        "attempts": 0,
        "accepted_at": "2024-01-01T12:00:00+00:00",
    }
    one.state = "waiting: Job x is still building"
    assert results.get("e-1") == results.get("e-1")
    document = results.get("e-1")
    assert document is not None
    assert (document["status"], document["message"]) == ("waiting", "Job x is still building")
    results.finish(one, one.result(Done(Outcome.CREATED, image="r/i:t"), building.NOON, "job"))
    document = results.get("e-1")
    assert document is not None
    assert (document["status"], document["job_name"], document["image"]) == ("created", "job", "r/i:t")
    assert len(results) == 1


def test_they_are_forgotten_after_their_time() -> None:
    """An hour, whoever asks or does not."""
    clock = Clock()
    results = Results(3600, 10, clock)
    finished(results, "e-1")
    clock.now = 3599
    assert results.get("e-1") is not None
    clock.now = 3600
    assert (results.get("e-1"), len(results)) == (None, 0)


def test_they_are_bounded() -> None:
    """The oldest go first."""
    results = Results(3600, 2, Clock())
    for name in ("a", "b", "c"):
        finished(results, name)
    assert [results.get(name) is not None for name in ("a", "b", "c")] == [False, True, True]


def test_a_shared_correlation_id_shows_the_last_request() -> None:
    """An older one that ends later does not hide the newer one in flight."""
    results = Results(3600, 10, Clock())
    old, new = item("old", correlation_id="same"), item("new", correlation_id="same")
    results.begin(old)
    results.begin(new)
    results.finish(old, old.result(Done(Outcome.SUPERSEDED), building.NOON, None))
    document = results.get("same")
    assert document is not None
    assert document["event"]["id"] == "new"
