"""What the worker pool may rely on, whichever cluster it works with."""

import asyncio
from typing import Any

import pytest

from builder.errors import AlreadyExists, ClusterError, Conflict, Denied
from builder.models import Manifest
from tests.contract.harness import Harness, a_job, eventually

NOT_A_UID = "00000000-0000-0000-0000-000000000000"
TOO_LONG = "a" * 64


async def created(harness: Harness, job: Manifest) -> Manifest:
    """The Job as it is right after its creation."""
    await harness.cluster.create(job)
    made = await harness.cluster.get(job["metadata"]["name"])
    assert made is not None
    return made


def uid(job: Manifest) -> str:
    """Its identity, which a second Job of the same name does not share."""
    return str(job["metadata"]["uid"])


def ended(job: Manifest | None) -> bool:
    """True once the Job has come to its end."""
    conditions = (job or {}).get("status", {}).get("conditions", [])
    return any(condition["type"] in {"Complete", "Failed"} for condition in conditions)


def timeless(value: Any) -> Any:
    """A status without its times, which no two clusters share."""
    if isinstance(value, dict):
        return {key: timeless(inner) for key, inner in value.items() if not key.endswith("Time")}
    return [timeless(inner) for inner in value] if isinstance(value, list) else value


def part_of(whole: Any, pattern: Any) -> Any:
    """What ``whole`` has at the places that ``pattern`` has, so that the two can be compared."""
    if isinstance(pattern, dict):
        return {key: part_of(whole[key], inner) for key, inner in pattern.items()}
    if isinstance(pattern, list):
        return [part_of(inner, wanted) for inner, wanted in zip(whole, pattern, strict=True)]
    return whole


async def test_what_we_set_comes_back(harness: Harness) -> None:
    """A decision about an existing Job is made from the labels and annotations that it was created with."""
    job = a_job(spec={"activeDeadlineSeconds": 1800, "ttlSecondsAfterFinished": 60})

    made = await created(harness, job)

    assert part_of(made, job) == job


async def test_the_server_adds_an_identity(harness: Harness) -> None:
    """Deleting needs the uid, and the Pods are found by their labels."""
    made = await created(harness, a_job())

    metadata = made["metadata"]
    assert len(metadata["uid"]) == len(NOT_A_UID)
    assert int(metadata["resourceVersion"]) > 0
    assert metadata["creationTimestamp"].endswith("Z")
    assert metadata["generation"] == 1
    assert metadata["labels"] == {"app.kubernetes.io/name": "kaniko-job"}
    assert made["spec"]["template"]["metadata"]["labels"] == {
        "app.kubernetes.io/name": "kaniko-job",
        "batch.kubernetes.io/controller-uid": metadata["uid"],
        "batch.kubernetes.io/job-name": "a-job",
        "controller-uid": metadata["uid"],
        "job-name": "a-job",
    }


async def test_the_created_job_is_the_servers_own(harness: Harness) -> None:
    """Nobody changes a Job in the cluster by writing to a dict."""
    job = a_job()
    await harness.cluster.create(job)
    job["metadata"]["labels"]["app.kubernetes.io/name"] = "changed"
    read = await harness.cluster.get("a-job")
    assert read is not None
    read["spec"]["backoffLimit"] = 6

    again = await harness.cluster.get("a-job")

    assert again is not None
    assert part_of(again, a_job()) == a_job()


async def test_a_job_that_is_not_there(harness: Harness) -> None:
    """``get`` says so by None and ``delete`` by nothing at all: somebody was faster, and that is well."""
    assert await harness.cluster.get("no-such-job") is None
    await harness.cluster.delete("no-such-job", NOT_A_UID, foreground=False)
    await harness.cluster.delete("no-such-job", NOT_A_UID, foreground=True)


@pytest.mark.parametrize("name", ["a", "0-9", "with.dots", "a" * 63])
async def test_legal_names(harness: Harness, name: str) -> None:
    """Our naming may use all of this."""
    assert (await created(harness, a_job(name)))["metadata"]["name"] == name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        pytest.param("", "metadata.name: Required value: name or generateName is required", id="empty"),
        pytest.param("Upper", 'metadata.name: Invalid value: "Upper": a lowercase RFC 1123 subdomain', id="upper"),
        pytest.param("a_b", 'metadata.name: Invalid value: "a_b": a lowercase RFC 1123 subdomain', id="underscore"),
        pytest.param("a-", 'metadata.name: Invalid value: "a-": a lowercase RFC 1123 subdomain', id="dash at the end"),
        pytest.param("a..b", 'metadata.name: Invalid value: "a..b": a lowercase RFC 1123 subdomain', id="two dots"),
        pytest.param(TOO_LONG, f'"{TOO_LONG}": must be no more than 63 bytes', id="64 characters"),
    ],
)
async def test_illegal_names(harness: Harness, name: str, words: str) -> None:
    """A name is denied for good, with words that a dead letter can show. 64 characters are legal for other objects."""
    with pytest.raises(Denied) as denied:
        await harness.cluster.create(a_job(name))

    assert (denied.value.status, denied.value.retry_after) == (422, None)
    assert str(denied.value).startswith(f'Job.batch "{name}" is invalid: ')
    assert words in str(denied.value)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        pytest.param(
            {"k": TOO_LONG}, f'metadata.labels: Invalid value: "{TOO_LONG}": must be no more than 63 bytes', id="long"
        ),
        pytest.param({"k": "a b"}, 'metadata.labels: Invalid value: "a b": a valid label must be', id="space"),
        pytest.param({"k": "-a"}, 'metadata.labels: Invalid value: "-a": a valid label must be', id="dash first"),
        pytest.param({"a b": "v"}, 'metadata.labels: Invalid value: "a b": name part must consist of', id="key"),
        pytest.param(
            {"A.b/c": "v"}, 'metadata.labels: Invalid value: "A.b/c": prefix part a lowercase', id="key prefix"
        ),
        pytest.param({TOO_LONG: "v"}, f'"{TOO_LONG}": name part must be no more than 63 bytes', id="long key"),
    ],
)
async def test_illegal_labels(harness: Harness, labels: dict[str, str], words: str) -> None:
    """What senders put into their ids must become legal labels before it gets here."""
    with pytest.raises(Denied) as denied:
        await harness.cluster.create(a_job(labels=labels))

    assert denied.value.status == 422
    assert words in str(denied.value)


async def test_annotations_may_be_large(harness: Harness) -> None:
    """Ids go into annotations whole, for there any text is legal, up to 256 KiB of keys and values in UTF-8."""
    fits = {"k": "ü" * ((256 * 1024 - 1) // 2)}
    made = await created(harness, a_job(annotations=fits))
    assert made["metadata"]["annotations"] == fits

    with pytest.raises(Denied) as denied:
        await harness.cluster.create(a_job("larger", annotations=fits | {"l": "1"}))

    assert denied.value.status == 422
    assert "metadata.annotations: Too long: may not be more than 262144 bytes" in str(denied.value)


@pytest.mark.parametrize(
    ("broken", "status", "words"),
    [
        pytest.param({"containers": []}, 422, "spec.template.spec.containers: Required value", id="no container"),
        pytest.param(
            {"restartPolicy": "Always"}, 422, 'Required value: valid values: "OnFailure", "Never"', id="restarts"
        ),
        pytest.param({"containers": [{"name": "k"}]}, 422, "containers[0].image: Required value", id="no image"),
        pytest.param(
            {"containers": [{"name": "K_", "image": "i"}]},
            422,
            "containers[0].name: Invalid value",
            id="container name",
        ),
    ],
)
async def test_pods_that_could_not_run(harness: Harness, broken: dict[str, Any], status: int, words: str) -> None:
    """A broken template is refused with the Job; it would be worse to find out from a Job without Pods."""
    job = a_job()
    job["spec"]["template"]["spec"] |= broken

    with pytest.raises(Denied) as denied:
        await harness.cluster.create(job)

    assert denied.value.status == status
    assert words in str(denied.value)


@pytest.mark.parametrize("field", ["activeDeadlineSeconds", "ttlSecondsAfterFinished", "backoffLimit"])
async def test_numbers_of_the_wrong_kind(harness: Harness, field: str) -> None:
    """Seconds are whole and not negative: 0.5 cannot even be read (400), -1 is not allowed (422)."""
    with pytest.raises(Denied) as unreadable:
        await harness.cluster.create(a_job(spec={field: 0.5}))
    with pytest.raises(Denied) as refused:
        await harness.cluster.create(a_job(spec={field: -1}))

    assert (unreadable.value.status, refused.value.status) == (400, 422)
    assert f"spec.{field}: Invalid value: -1: must be greater than or equal to 0" in str(refused.value)


async def test_a_name_is_taken_once(harness: Harness) -> None:
    """The name is the lock: a second Job of that name is refused, however much it looks like the first."""
    made = await created(harness, a_job())

    with pytest.raises(AlreadyExists) as taken:
        await harness.cluster.create(a_job())

    assert (taken.value.status, str(taken.value)) == (409, 'jobs.batch "a-job" already exists')
    still = await harness.cluster.get("a-job")
    assert still is not None
    assert uid(still) == uid(made)


async def test_of_many_at_once_one_gets_the_name(harness: Harness) -> None:
    """Replicas that get the same event at the same moment end with one Job."""
    calls = [harness.cluster.create(a_job()) for _ in range(20)]

    results = await asyncio.gather(*calls, return_exceptions=True)

    refused = [result for result in results if result is not None]
    assert [type(error) for error in refused] == [AlreadyExists] * 19


async def test_only_the_job_that_was_read_is_deleted(harness: Harness) -> None:
    """Between reading and deleting, somebody may have put another Job under the name: that one stays."""
    made = await created(harness, a_job())

    for foreground in (True, False):
        with pytest.raises(Conflict) as conflict:
            await harness.cluster.delete("a-job", NOT_A_UID, foreground=foreground)
        assert conflict.value.status == 409
        assert f"does not match the UID in record ({uid(made)})" in str(conflict.value)

    still = await harness.cluster.get("a-job")
    assert still is not None
    assert "deletionTimestamp" not in still["metadata"]


async def test_deleting_in_the_background_frees_the_name_at_once(harness: Harness) -> None:
    """A finished build is replaced without waiting, and its Pod does not stay behind as an orphan."""
    old = await created(harness, a_job())
    await eventually(lambda: harness.pods(uid(old)), bool)

    await harness.cluster.delete("a-job", uid(old), foreground=False)
    assert await harness.cluster.get("a-job") is None
    new = await created(harness, a_job())

    assert uid(new) != uid(old)
    assert await eventually(lambda: harness.pods(uid(old)), lambda pods: not pods) == []
    assert len(await eventually(lambda: harness.pods(uid(new)), bool)) == 1


async def test_deleting_in_the_foreground_keeps_the_name_until_the_pod_is_gone(harness: Harness) -> None:
    """An active build is replaced so that two builds of one target never run at the same time."""
    old = await created(harness, a_job())
    await eventually(lambda: harness.pods(uid(old)), bool)

    async with harness.pods_held(uid(old)):
        await harness.cluster.delete("a-job", uid(old), foreground=True)
        await harness.cluster.delete("a-job", uid(old), foreground=True)  # twice is not once more
        leaving = await harness.cluster.get("a-job")
        with pytest.raises(AlreadyExists) as taken:
            await harness.cluster.create(a_job())
        assert len(await harness.pods(uid(old))) == 1

    assert leaving is not None
    assert uid(leaving) == uid(old)
    assert leaving["metadata"]["deletionTimestamp"].endswith("Z")
    assert leaving["metadata"]["finalizers"] == ["foregroundDeletion"]
    assert str(taken.value) == 'object is being deleted: jobs.batch "a-job" already exists'
    assert await eventually(lambda: harness.cluster.get("a-job"), lambda job: job is None) is None
    assert await harness.pods(uid(old)) == []


async def test_who_cannot_wait_for_the_foreground_takes_the_background(harness: Harness) -> None:
    """A Pod that hangs while it is being deleted need not block the name for ever."""
    old = await created(harness, a_job())
    await eventually(lambda: harness.pods(uid(old)), bool)

    async with harness.pods_held(uid(old)):
        await harness.cluster.delete("a-job", uid(old), foreground=True)
        await harness.cluster.delete("a-job", uid(old), foreground=False)
        new = await created(harness, a_job())

    assert uid(new) != uid(old)
    assert await eventually(lambda: harness.pods(uid(old)), lambda pods: not pods) == []


async def test_a_pod_is_made(harness: Harness) -> None:
    """An active Job says so in its status and has one Pod, which waits."""
    made = await created(harness, a_job())

    job = await eventually(
        lambda: harness.cluster.get("a-job"), lambda job: (job or {}).get("status", {}).get("active")
    )
    pods = await eventually(lambda: harness.pods(uid(made)), bool)

    assert job is not None
    assert timeless(job["status"]) == {"active": 1, "ready": 0, "terminating": 0, "uncountedTerminatedPods": {}}
    assert [pod.startswith("a-job-") for pod in pods] == [True]


async def test_a_build_that_succeeds(harness: Harness) -> None:
    """``Complete`` says that the build is done; ``SuccessCriteriaMet`` comes before it."""
    await created(harness, a_job())

    await harness.finish("a-job", succeeded=True)

    job = await eventually(lambda: harness.cluster.get("a-job"), ended)
    assert job is not None
    why = {"status": "True", "reason": "CompletionsReached", "message": "Reached expected number of succeeded pods"}
    assert timeless(job["status"]) == {
        "conditions": [{"type": "SuccessCriteriaMet", **why}, {"type": "Complete", **why}],
        "succeeded": 1,
        "ready": 0,
        "terminating": 0,
        "uncountedTerminatedPods": {},
    }
    assert job["status"]["startTime"] <= job["status"]["completionTime"]


async def test_a_build_that_fails(harness: Harness) -> None:
    """``Failed`` says that no try is left; the Pod stays, for its log is what people want to read."""
    made = await created(harness, a_job(spec={"backoffLimit": 0}))

    await harness.finish("a-job", succeeded=False)

    job = await eventually(lambda: harness.cluster.get("a-job"), ended)
    assert job is not None
    why = {"status": "True", "reason": "BackoffLimitExceeded", "message": "Job has reached the specified backoff limit"}
    assert timeless(job["status"]) == {
        "conditions": [{"type": "FailureTarget", **why}, {"type": "Failed", **why}],
        "failed": 1,
        "ready": 0,
        "terminating": 0,
        "uncountedTerminatedPods": {},
    }
    assert len(await harness.pods(uid(made))) == 1


async def test_a_build_that_takes_too_long(harness: Harness) -> None:
    """``activeDeadlineSeconds`` ends any build, and takes the Pod away."""
    made = await created(harness, a_job(spec={"activeDeadlineSeconds": 1}))

    job = await eventually(lambda: harness.cluster.get("a-job"), ended)

    assert job is not None
    why = {"status": "True", "reason": "DeadlineExceeded", "message": "Job was active longer than specified deadline"}
    assert timeless(job["status"]) == {
        "conditions": [{"type": "FailureTarget", **why}, {"type": "Failed", **why}],
        "failed": 1,
        "ready": 0,
        "terminating": 0,
        "uncountedTerminatedPods": {},
    }
    assert await eventually(lambda: harness.pods(uid(made)), lambda pods: not pods) == []


async def test_ended_builds_go_by_themselves(harness: Harness) -> None:
    """``ttlSecondsAfterFinished`` counts from the end of the build, and takes the Pod along."""
    made = await created(harness, a_job(spec={"ttlSecondsAfterFinished": 1}))
    await harness.finish("a-job", succeeded=True)
    await eventually(lambda: harness.cluster.get("a-job"), ended)

    assert await eventually(lambda: harness.cluster.get("a-job"), lambda job: job is None) is None
    assert await eventually(lambda: harness.pods(uid(made)), lambda pods: not pods) == []


async def test_the_server_answers(harness: Harness) -> None:
    """Readiness hangs on this."""
    try:
        await harness.cluster.probe()
    except ClusterError as exc:
        pytest.fail(f"a healthy cluster must answer: {exc}")
