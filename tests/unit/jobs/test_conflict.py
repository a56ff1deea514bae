"""The conflict table, row by row."""

from datetime import timedelta
from typing import Any, Literal

import pytest

from builder.jobs.conflict import Wanted, decide
from builder.jobs.fingerprint import fingerprint
from builder.jobs.manifest import build_job
from builder.jobs.succession import REMEMBERED, came_after, successor
from builder.models import BuildRequest, Decision, Manifest, Source, SourceKind, Target
from tests import building

COMPLETE = {"conditions": [{"type": "Complete", "status": "True"}]}
FAILED = {"conditions": [{"type": "FailureTarget", "status": "True"}, {"type": "Failed", "status": "True"}]}
ENDING = {"conditions": [{"type": "SuccessCriteriaMet", "status": "True"}]}
ACTIVE: dict[str, Any] = {"active": 1}
DELETING = {"deletionTimestamp": "2024-01-01T12:00:00Z"}

PINNED = Source(SourceKind.GIT, "https://git.example.com/acme/parser1.git", ref="a" * 40)
V1 = fingerprint(building.request(event_id="e-2", source=PINNED))
V2, BARE = V1.replace("v1:", "v2:"), V1.removeprefix("v1:")
OTHER = Target("acme", "parser2")
EARLIER, LATER = building.NOON - timedelta(seconds=1), building.NOON + timedelta(microseconds=1)


def job_of(request: BuildRequest, status: dict[str, Any], **metadata: Any) -> Manifest:
    """A Job as the API server gives it."""
    job = build_job(request, building.settings())
    return job | {"metadata": job["metadata"] | {"uid": "u-1"} | metadata, "status": status}


def fingerprinted(text: str | None, status: dict[str, Any]) -> Manifest:
    """A build of a full commit hash, made by a version of ours that computed its fingerprint in another way."""
    job = job_of(building.request(source=PINNED), status)
    annotations = dict(job["metadata"]["annotations"])
    del annotations["build.notifi.network/fingerprint"]
    if text is not None:
        annotations["build.notifi.network/fingerprint"] = text
    job["metadata"]["annotations"] = annotations
    return job


def suspended(request: BuildRequest) -> Manifest:
    """A Job that Kueue has not let start."""
    job = job_of(request, {"conditions": [{"type": "Suspended", "status": "True"}]})
    return job | {"spec": job["spec"] | {"suspend": True}}


def wanted(**changes: Any) -> Wanted:
    """What a new event wants."""
    request = building.request(event_id="e-2", **changes)
    return Wanted(build_job(request, building.settings()), request.source)


Mode = Literal["wait", "replace"]
ROWS: list[tuple[str, Manifest | None, Wanted, Mode, Decision]] = [
    ("nothing: it vanished meanwhile", None, wanted(), "wait", Decision.CREATE),
    *(
        (f"the same event, {name}", job_of(building.request(event_id="e-2"), status), wanted(), "wait", Decision.ADOPT)
        for name, status in {"active": ACTIVE, "complete": COMPLETE, "failed": FAILED}.items()
    ),
    ("the same event, being deleted", job_of(building.request(event_id="e-2"), COMPLETE, **DELETING), wanted(), "wait", Decision.ADOPT),
    ("one requested later", job_of(building.request(requested_at=LATER), ACTIVE), wanted(), "wait", Decision.SUPERSEDED),
    ("one requested later, finished", job_of(building.request(requested_at=LATER), FAILED), wanted(), "replace", Decision.SUPERSEDED),
    ("the same commit, active", job_of(building.request(source=PINNED), ACTIVE), wanted(source=PINNED), "wait", Decision.ADOPT),
    ("the same commit, complete", job_of(building.request(source=PINNED), COMPLETE), wanted(source=PINNED), "wait", Decision.ADOPT),
    ("the same commit, failed", job_of(building.request(source=PINNED), FAILED), wanted(source=PINNED), "wait", Decision.REPLACE_FINISHED),
    ("another commit, complete", job_of(building.request(), COMPLETE), wanted(source=PINNED), "wait", Decision.REPLACE_FINISHED),
    ("the same branch, complete", job_of(building.request(), COMPLETE), wanted(), "wait", Decision.REPLACE_FINISHED),
    ("failed", job_of(building.request(), FAILED), wanted(), "wait", Decision.REPLACE_FINISHED),
    ("active", job_of(building.request(), ACTIVE), wanted(), "wait", Decision.WAIT_FOR_BUILD),
    ("active, no status yet", job_of(building.request(), {}), wanted(), "wait", Decision.WAIT_FOR_BUILD),
    ("ending: its Pod may still push", job_of(building.request(), ENDING), wanted(), "wait", Decision.WAIT_FOR_BUILD),
    ("active, newest wins", job_of(building.request(requested_at=EARLIER), ACTIVE), wanted(), "replace", Decision.REPLACE_ACTIVE),
    ("active, newest wins, but it is of the same moment", job_of(building.request(), ACTIVE), wanted(), "replace", Decision.WAIT_FOR_BUILD),
    ("it came after this event's own Job", successor(job_of(building.request(), COMPLETE), job_of(building.request(event_id="e-2"), COMPLETE)), wanted(), "wait", Decision.SUPERSEDED),
    ("the same name for another target, requested later", job_of(building.request(target=OTHER, job_name="x", requested_at=LATER), COMPLETE), wanted(job_name="x"), "wait", Decision.REPLACE_FINISHED),
    ("the same name for another target, active", job_of(building.request(target=OTHER, job_name="x", requested_at=EARLIER), ACTIVE), wanted(job_name="x"), "replace", Decision.WAIT_FOR_BUILD),
    ("the same name for another target, after this event's own Job", successor(job_of(building.request(target=OTHER, job_name="x"), ACTIVE), job_of(building.request(event_id="e-2", job_name="x"), COMPLETE)), wanted(job_name="x"), "wait", Decision.SUPERSEDED),
    ("being deleted", job_of(building.request(), COMPLETE, **DELETING), wanted(), "replace", Decision.WAIT_FOR_DELETION),
    ("the same commit, being deleted", job_of(building.request(source=PINNED), ACTIVE, **DELETING), wanted(source=PINNED), "wait", Decision.WAIT_FOR_DELETION),
    *(
        (f"the same commit, complete, fingerprint of {version}", fingerprinted(print_, COMPLETE), wanted(source=PINNED), "wait", Decision.REPLACE_FINISHED)
        for version, print_ in {"a later version": V2, "an earlier version": BARE, "nobody": None}.items()
    ),
    ("the same commit, active, fingerprint of a later version", fingerprinted(V2, ACTIVE), wanted(source=PINNED), "wait", Decision.WAIT_FOR_BUILD),
    ("active, not let start by its queue", suspended(building.request()), wanted(), "wait", Decision.WAIT_FOR_BUILD),
    ("active, not let start by its queue, newest wins", suspended(building.request(requested_at=EARLIER)), wanted(), "replace", Decision.REPLACE_ACTIVE),
    ("the same commit, not let start by its queue", suspended(building.request(source=PINNED)), wanted(source=PINNED), "wait", Decision.ADOPT),
    ("not ours: no label", job_of(building.request(), COMPLETE, labels={}), wanted(), "replace", Decision.NAME_TAKEN),
    ("not ours: no metadata at all", {"metadata": {"name": "kaniko-job-acme-parser1", "uid": "u"}}, wanted(), "replace", Decision.NAME_TAKEN),
    ("another third party's", job_of(building.request(target=Target("rival", "p"), job_name="x"), COMPLETE), wanted(job_name="x"), "replace", Decision.NAME_TAKEN),
    ("made by a clock that was a day ahead", job_of(building.request(requested_at=LATER + timedelta(days=1)), COMPLETE, creationTimestamp="2024-01-01T11:58:00Z"), wanted(), "wait", Decision.REPLACE_FINISHED),
    ("made by a clock that was seconds ahead", job_of(building.request(requested_at=LATER), COMPLETE, creationTimestamp="2024-01-01T11:59:58Z"), wanted(), "wait", Decision.SUPERSEDED),
    ("its requested-at was broken by hand", job_of(building.request(), COMPLETE, annotations={"build.notifi.network/third-party-id": "acme", "build.notifi.network/requested-at": "soon"}), wanted(), "wait", Decision.REPLACE_FINISHED),
]  # fmt: skip


@pytest.mark.parametrize(
    ("existing", "wanted", "mode", "expected"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_what_exists_under_the_name(existing: Manifest | None, wanted: Wanted, mode: Mode, expected: Decision) -> None:
    """What to do about it."""
    assert decide(existing, wanted, mode) is expected


def queue_of(*requests: BuildRequest) -> tuple[list[Manifest], Manifest]:
    """Jobs that replaced each other under one name, and the last as it is then."""
    jobs = [build_job(request, building.settings()) for request in requests]
    last = jobs[0]
    for job in jobs[1:]:
        last = successor(job, last)
    return jobs, last


def test_those_of_one_moment_are_remembered() -> None:
    """Nothing else tells that their turn is over. Each replacement passes the note on, of a bounded length."""
    jobs, last = queue_of(*(building.request(event_id=f"e-{number}") for number in range(100)))

    assert [came_after(last, job) for job in jobs] == [False] * 49 + [True] * REMEMBERED + [False]
    annotations = {key: value for key, value in last["metadata"]["annotations"].items() if "replaced" not in key}
    assert last | {"metadata": last["metadata"] | {"annotations": annotations}} == jobs[99]


def test_what_time_tells_is_not_noted() -> None:
    """The ordinary Job carries no note."""
    jobs, last = queue_of(building.request(requested_at=EARLIER), building.request(event_id="e-2"))

    assert last == jobs[1]


def test_the_order_of_two_targets_under_one_name() -> None:
    """The latest turn of each is remembered: what was requested before it is over, what was requested after it is not."""
    times = [building.NOON + timedelta(minutes=minute) for minute in range(6)]
    targets = [Target("acme", "one"), Target("acme", "other")]
    wishes = [
        building.request(event_id=f"e-{minute}", target=targets[minute % 2], job_name="x", requested_at=at)
        for minute, at in enumerate(times)
    ]
    jobs, last = queue_of(wishes[0], wishes[2], wishes[1])

    assert [came_after(last, job) for job in jobs] == [True, True, False]
    assert not came_after(last, build_job(wishes[4], building.settings()))
    assert len(last["metadata"]["annotations"]["build.notifi.network/replaced"].split()) == 1


@pytest.mark.parametrize("note", ["", "nonsense", "a,b", "a,b,never", ",,,,", "a,b,2024-01-01T00:00:00"])
def test_a_note_that_somebody_broke(note: str) -> None:
    """It says nothing, and breaks nothing."""
    job = build_job(building.request(), building.settings())
    job["metadata"]["annotations"]["build.notifi.network/replaced"] = note
    assert not came_after(job, build_job(building.request(event_id="e-2"), building.settings()))
