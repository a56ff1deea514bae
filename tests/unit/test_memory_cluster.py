"""What the embedded cluster does beyond the contract: it plays builds by itself, and shows them."""

import asyncio
import gc
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import pytest

from builder.adapters.memory_cluster import MemoryCluster
from builder.errors import AlreadyExists, Denied
from builder.models import Manifest
from builder.settings import Memory
from tests.contract.harness import a_job

pytestmark = pytest.mark.looptime
"""The clock jumps to the next timer, so that the times of a play can be told exactly."""

SETTINGS = Memory.model_validate({"pendingTime": "1s", "buildTime": "3s", "deletionTime": "500ms"})


class Diary:
    """Writes down what an observer of the cluster is shown."""

    def __init__(self) -> None:
        self.entries: list[tuple[float, str]] = []

    def __call__(self, job: Manifest) -> None:
        """To be the cluster's ``on_change``."""
        at = asyncio.get_running_loop().time()
        self.entries.append((round(at, 3), f"{job['metadata']['name']} {_phase(job)}"))


def _phase(job: Manifest) -> str:
    if "deletionTimestamp" in job["metadata"]:
        return "leaving"
    conditions = [condition["type"] for condition in job["status"].get("conditions", [])]
    if conditions:
        return "+".join(conditions)
    return "running" if job["status"]["ready"] else "pending"


@pytest.fixture
def diary() -> Diary:
    """An empty one."""
    return Diary()


@pytest.fixture
async def cluster(diary: Diary) -> AsyncIterator[MemoryCluster]:
    """1 s pending, 3 s running, half a second to go."""
    async with MemoryCluster(SETTINGS, "builds", diary) as cluster:
        yield cluster


async def there(cluster: MemoryCluster, name: str = "a-job") -> Manifest:
    """The Job, which must be there."""
    job = await cluster.get(name)
    assert job is not None
    return job


async def test_a_build_completes_by_itself(cluster: MemoryCluster, diary: Diary) -> None:
    """A person who runs the service on a laptop sees a whole life, up to the end of the time to live."""
    await cluster.create(a_job(spec={"ttlSecondsAfterFinished": 60}))
    await asyncio.sleep(100)

    assert diary.entries == [
        (0.0, "a-job pending"),
        (1.0, "a-job running"),
        (4.0, "a-job SuccessCriteriaMet+Complete"),
        (64.0, "a-job leaving"),
    ]
    assert (await cluster.get("a-job"), cluster.pods()) == (None, {})


async def test_without_a_time_to_live_it_stays(cluster: MemoryCluster) -> None:
    """As in Kubernetes: nobody cleans up what nobody said should go."""
    await cluster.create(a_job())
    await asyncio.sleep(10**6)

    assert [job["metadata"]["name"] for job in cluster.jobs()] == ["a-job"]
    assert list(cluster.pods().values()) == [job["metadata"]["uid"] for job in cluster.jobs()]


@pytest.mark.parametrize(
    ("deadline", "diary_entries"),
    [
        (0, [(0.0, "pending"), (0.0, "FailureTarget"), (0.5, "FailureTarget+Failed")]),
        (1, [(0.0, "pending"), (1.0, "running"), (1.0, "FailureTarget"), (1.5, "FailureTarget+Failed")]),
        (3, [(0.0, "pending"), (1.0, "running"), (3.0, "FailureTarget"), (3.5, "FailureTarget+Failed")]),
        (4, [(0.0, "pending"), (1.0, "running"), (4.0, "SuccessCriteriaMet+Complete")]),
    ],
)
async def test_a_deadline_before_the_end(
    cluster: MemoryCluster, diary: Diary, deadline: int, diary_entries: list[tuple[float, str]]
) -> None:
    """The way to see a failed build: a deadline shorter than the play. The Pod is stopped before the Job is Failed."""
    await cluster.create(a_job(spec={"activeDeadlineSeconds": deadline}))
    await asyncio.sleep(100)

    assert diary.entries == [(at, f"a-job {phase}") for at, phase in diary_entries]


async def test_times_follow_the_clock(cluster: MemoryCluster) -> None:
    """Time-stamps and phases tell the same story."""
    await cluster.create(a_job())
    await asyncio.sleep(3600)

    status = (await there(cluster))["status"]
    start, end = (_seconds(status[key]) for key in ("startTime", "completionTime"))
    assert end - start == pytest.approx(4, abs=1)
    assert [condition["lastTransitionTime"] for condition in status["conditions"]] == [status["completionTime"]] * 2


def _seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()


async def test_a_running_build(cluster: MemoryCluster) -> None:
    """``ready`` is how the controller tells a running Pod from one that waits."""
    await cluster.create(a_job())
    await asyncio.sleep(2)

    status = (await there(cluster))["status"]

    del status["startTime"]
    assert status == {"active": 1, "ready": 1, "terminating": 0, "uncountedTerminatedPods": {}}


async def test_a_build_that_is_being_stopped(cluster: MemoryCluster) -> None:
    """Past its deadline but with a Pod, a Job is not Failed yet: another build of the target would run beside it."""
    await cluster.create(a_job(spec={"activeDeadlineSeconds": 2}))
    await asyncio.sleep(2.1)
    cluster.finish("a-job", succeeded=True)  # too late

    status = (await there(cluster))["status"]

    assert [condition["type"] for condition in status["conditions"]] == ["FailureTarget"]
    assert (status["failed"], status["terminating"], len(cluster.pods())) == (1, 1, 1)


async def test_failed_after_all_retries(cluster: MemoryCluster) -> None:
    """A failure that is final is that of the last of ``backoffLimit`` retries."""
    await cluster.create(a_job(spec={"backoffLimit": 2}))

    cluster.finish("a-job", succeeded=False)
    cluster.finish("a-job", succeeded=True)  # the first end counts

    status = (await there(cluster))["status"]
    assert (status["failed"], status["conditions"][-1]["reason"]) == (3, "BackoffLimitExceeded")


async def test_deleting_ends_the_play(cluster: MemoryCluster, diary: Diary) -> None:
    """A deleted build neither completes nor comes back."""
    for name, foreground in (("back", False), ("fore", True)):
        await cluster.create(a_job(name))
        await cluster.delete(name, (await there(cluster, name))["metadata"]["uid"], foreground=foreground)
    assert len(cluster.pods()) == 2
    cluster.finish("fore", succeeded=True)  # its Pod is on its way out
    await asyncio.sleep(0.4)
    assert len(cluster.pods()) == 2
    await asyncio.sleep(0.2)

    assert cluster.pods() == {}
    assert list(cluster.jobs()) == []
    assert [entry for _, entry in diary.entries] == ["back pending", "back leaving", "fore pending", "fore leaving"]


async def test_a_closed_cluster_is_quiet(diary: Diary) -> None:
    """Nothing is left on the loop that could speak after the end of the service."""
    async with MemoryCluster(SETTINGS, on_change=diary) as cluster:
        await cluster.create(a_job("stays"))
        await cluster.create(a_job("leaves"))
        await cluster.delete("leaves", (await there(cluster, "leaves"))["metadata"]["uid"], foreground=False)
    await asyncio.sleep(100)

    assert [entry for _, entry in diary.entries] == ["stays pending", "leaves pending", "leaves leaving"]


async def test_the_namespace(cluster: MemoryCluster) -> None:
    """A Job for another namespace is a mistake, in the API server's own words."""
    job = a_job()
    await cluster.create(job)
    assert (await there(cluster))["metadata"]["namespace"] == "builds"

    with pytest.raises(Denied, match="the namespace of the provided object does not match"):
        await cluster.create(a_job("other") | {"metadata": {"name": "other", "namespace": "elsewhere"}})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "Pod"}, 'no kind "Pod" is registered for version "batch/v1"'),
        ({"apiVersion": "v1"}, 'no kind "Job" is registered for version "v1"'),
        ({"metadata": {"name": "n", "labels": {"k": 1}}}, "ObjectMeta.metadata.labels of type string"),
        ({"metadata": {"name": "n", "annotations": {"k": None}}}, "ObjectMeta.metadata.annotations of type string"),
        ({"spec": {"backoffLimit": True}}, "JobSpec.spec.backoffLimit of type integer"),
    ],
)
async def test_what_cannot_be_decoded(cluster: MemoryCluster, change: dict[str, Any], words: str) -> None:
    """A manifest of the wrong shape is a 400 there, and must not be a Job here."""
    with pytest.raises(Denied) as denied:
        await cluster.create(a_job() | change)

    assert denied.value.status == 400
    assert words in str(denied.value)


async def test_all_problems_at_once(cluster: MemoryCluster) -> None:
    """As the API server does: one round of corrections is enough."""
    job = a_job("a", labels={"k": "-"})
    job["spec"]["template"]["spec"] = {"containers": [{"name": "x", "image": "i"}, {"name": "x", "image": "i"}]}

    with pytest.raises(Denied) as denied:
        await cluster.create(job)

    message = str(denied.value)
    assert message.startswith('Job.batch "a" is invalid: [metadata.labels: Invalid value: "-": a valid label must be')
    assert message.endswith(
        ', spec.template.spec.containers[1].name: Duplicate value: "x", spec.template.spec.restartPolicy: '
        'Required value: valid values: "OnFailure", "Never"]'
    )


async def test_others_get_their_turn(cluster: MemoryCluster) -> None:
    """A worker that never has to wait for the network must not keep the event loop from serving everybody else."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    for number in range(10):
        await cluster.create(a_job(f"job-{number}"))
    task.cancel()

    assert turns >= 9


async def test_jobs_do_not_burden_the_garbage_collector(cluster: MemoryCluster) -> None:
    """A hundred thousand Jobs must not stop the world: each is a few objects, whatever is in its manifest."""
    gc.collect()
    before = len(gc.get_objects())
    for number in range(1000):
        await cluster.create(a_job(f"job-{number}"))
    gc.collect()

    assert (len(gc.get_objects()) - before) / 1000 < 10


async def test_a_name_is_free_after_the_pod_is_gone(cluster: MemoryCluster) -> None:
    """The end of a foreground deletion, to the moment."""
    await cluster.create(a_job())
    await cluster.delete("a-job", (await there(cluster))["metadata"]["uid"], foreground=True)
    await asyncio.sleep(0.49)
    with pytest.raises(AlreadyExists):
        await cluster.create(a_job())
    await asyncio.sleep(0.02)

    await cluster.create(a_job())
