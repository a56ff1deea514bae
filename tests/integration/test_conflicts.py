"""The conflict table (ARCHITECTURE.md), row by row, against a real API server and its Job controller.

Each test has two replicas' worth of history: a Job that an earlier service left behind, and the one under test.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from builder.adapters.kubernetes import KubernetesCluster
from builder.errors import AlreadyExists
from builder.events.request import build_request
from builder.flow.items import Wait
from builder.flow.ports import Cluster
from builder.jobs import labels
from builder.jobs.manifest import build_job
from builder.jobs.status import JobState, job_state
from builder.models import Event, FailureReason, Manifest
from builder.settings import Kubernetes
from builder.settings_sources import validate
from tests.building import NOON, event
from tests.contract.harness import KubernetesHarness, a_job, eventually
from tests.integration.namespace import Namespace
from tests.integration.replica import Replica
from tests.integration.service import settings_tree

pytestmark = pytest.mark.integration

NAME = "kaniko-job-acme-parser1"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SOON: dict[str, Any] = {"workerCount": 1, "maxRetryDelay": "200ms"}
"""One worker, so that an item that held it would block all others; and back-off that a test can wait for."""


def at(minute: int, **parameters: Any) -> Event:
    """The event ``e-<minute>``, requested so many minutes after noon."""
    return event(f"e-{minute}", time=NOON + timedelta(minutes=minute), **parameters)


class Site:
    """What stands in the namespace before the replica under test comes."""

    def __init__(self, namespace: Namespace, cluster: KubernetesCluster) -> None:
        self.namespace = namespace
        self.cluster = cluster
        self.kubelet = KubernetesHarness(cluster, namespace.plane, namespace.name)

    async def job(self, name: str = NAME) -> Manifest:
        """The Job of that name, which must be there."""
        job = await self.cluster.get(name)
        assert job is not None
        return job

    async def build(self, event: Event) -> Manifest:
        """The Job that an earlier service made of an event, once the Job controller has seen to it."""
        await self.cluster.create(job_of(event))
        return await self.started()

    async def started(self, name: str = NAME) -> Manifest:
        """The Job once it has its Pod; nothing changes it then but its end."""
        return await eventually(lambda: self.job(name), lambda job: job["status"])

    async def finish(self, *, succeeded: bool = True) -> None:
        """Let the build come to its end, which may be the beginning of the next."""
        await self.kubelet.finish(NAME, succeeded=succeeded)

    async def finished(self, *, succeeded: bool) -> Manifest:
        """Let the build come to its end; its Job then."""
        await self.finish(succeeded=succeeded)
        state = JobState.COMPLETE if succeeded else JobState.FAILED
        return await eventually(self.job, lambda job: job_state(job) is state)

    @asynccontextmanager
    async def left_behind(self, event: Event, state: JobState) -> AsyncIterator[Manifest]:
        """An earlier build in the given state, which lasts as long as this is open."""
        async with AsyncExitStack() as stack:
            job = await self.build(event)
            if state is JobState.DELETING:
                await stack.enter_async_context(self.kubelet.pods_held(uid(job)))
                await self.cluster.delete(NAME, uid(job), foreground=True)
            elif state is not JobState.ACTIVE:
                await self.finished(succeeded=state is JobState.COMPLETE)
            yield await self.job()

    async def no_pods_of(self, job: Manifest) -> None:
        """Return when the Pods of a Job that was deleted are gone."""
        await eventually(lambda: self.kubelet.pods(uid(job)), lambda pods: not pods)


@pytest.fixture
async def site(namespace: Namespace) -> AsyncIterator[Site]:
    """An empty namespace with its kubelet."""
    async with KubernetesCluster.open(Kubernetes(namespace=namespace.name), namespace.environ) as cluster:
        yield Site(namespace, cluster)


class Meddled:
    """A cluster where somebody else acts once: right after ``create`` was refused, or right after ``get`` has read."""

    def __init__(self, cluster: Cluster, after: str, act: Callable[[], Awaitable[object]]) -> None:
        self._cluster = cluster
        self._acts = {after: act}
        self.delete = cluster.delete
        self.probe = cluster.probe

    async def create(self, job: Manifest) -> None:
        """See ``Cluster``."""
        try:
            await self._cluster.create(job)
        except AlreadyExists:
            await self._meddle("create")
            raise

    async def get(self, name: str) -> Manifest | None:
        """See ``Cluster``."""
        job = await self._cluster.get(name)
        await self._meddle("get")
        return job

    async def _meddle(self, after: str) -> None:
        if (act := self._acts.pop(after, None)) is not None:
            await act()


def job_of(event: Event) -> Manifest:
    """The Job that the service makes of an event now."""
    settings = validate(settings_tree({}))
    return build_job(build_request(event, datetime.now(UTC), settings.build, settings.intake), settings)


def uid(job: Manifest) -> str:
    """What tells a Job from an earlier one of its name."""
    return str(job["metadata"]["uid"])


def version(job: Manifest) -> tuple[str, int, str | None]:
    """The same for an object that nobody has touched but the Job controller, which writes its status when it has time."""
    metadata = job["metadata"]
    return uid(job), metadata["generation"], metadata.get("deletionTimestamp")


def built(job: Manifest) -> str:
    """The id of the event that a Job was made of."""
    return str(job["metadata"]["annotations"][labels.EVENT_ID])


ROWS = [JobState.ACTIVE, JobState.COMPLETE, JobState.FAILED, JobState.DELETING]


async def test_nothing_has_the_name(site: Site) -> None:
    """The Job is made, and nothing had to be decided."""
    async with Replica.open(site.cluster) as replica:
        result = await replica.build(at(1))

    assert (result["status"], result["job_name"], result["attempts"]) == ("created", NAME, 1)
    assert built(await site.job()) == "e-1"
    assert replica.parts.overview.stats()["conflicts"] == {}


async def test_the_name_became_free_meanwhile(site: Site) -> None:
    """Between the refused create and our look, somebody deleted what was there: create again."""
    old = await site.build(at(1))
    somebody = Meddled(site.cluster, "create", lambda: site.cluster.delete(NAME, uid(old), foreground=False))

    async with Replica.open(somebody) as replica:
        result = await replica.build(at(2))

    assert (result["status"], result["attempts"]) == ("created", 1)
    assert replica.parts.overview.stats()["conflicts"] == {"create": 1}
    assert built(await site.job()) == "e-2"


@pytest.mark.parametrize("state", ROWS)
async def test_the_same_event_is_adopted_in_every_state(site: Site, state: JobState) -> None:
    """The event had its Job, whatever became of it: building again would double it."""
    async with site.left_behind(at(1), state) as old, Replica.open(site.cluster) as replica:
        result = await replica.build(at(1))

        assert (result["status"], result["image"]) == ("adopted", old["metadata"]["annotations"][labels.IMAGE])
        assert version(await site.job()) == version(old)


@pytest.mark.parametrize("state", ROWS)
async def test_a_job_requested_later_makes_the_event_superseded(site: Site, state: JobState) -> None:
    """Events may overtake one another; the older one must not undo the newer build."""
    async with site.left_behind(at(2), state) as newer, Replica.open(site.cluster) as replica:
        result = await replica.build(at(1))

        assert (result["status"], result["image"]) == ("superseded", None)
        assert version(await site.job()) == version(newer)
        assert await replica.letters() == []


@pytest.mark.parametrize("state", [JobState.ACTIVE, JobState.COMPLETE])
async def test_the_same_commit_is_not_built_twice(site: Site, state: JobState) -> None:
    """An address that can never give other content, built the same way: that build is as good as ours."""
    async with site.left_behind(at(1, ref=COMMIT), state) as old, Replica.open(site.cluster) as replica:
        result = await replica.build(at(2, ref=COMMIT))

        assert (result["status"], result["image"]) == ("adopted", old["metadata"]["annotations"][labels.IMAGE])
        assert version(await site.job()) == version(old)


@pytest.mark.parametrize(
    ("first", "second", "succeeded"),
    [
        pytest.param({}, {}, True, id="complete: the source may have changed"),
        pytest.param({}, {}, False, id="failed"),
        pytest.param({"ref": COMMIT}, {"ref": COMMIT}, False, id="failed, the same commit"),
        pytest.param({"ref": COMMIT}, {"ref": COMMIT[::-1]}, True, id="complete, another commit"),
        pytest.param({"ref": COMMIT}, {"ref": COMMIT, "environment": {"A": "1"}}, True, id="complete, built otherwise"),
    ],
)
async def test_a_finished_build_is_replaced(
    site: Site, first: dict[str, Any], second: dict[str, Any], *, succeeded: bool
) -> None:
    """A new id is a wish to build again. The old Pod goes with its Job, and does not stay as an orphan."""
    await site.build(at(1, **first))
    old = await site.finished(succeeded=succeeded)
    assert len(await site.kubelet.pods(uid(old))) == 1

    async with Replica.open(site.cluster) as replica:
        result = await replica.build(at(2, **second))

    assert (result["status"], result["attempts"]) == ("created", 1)
    assert replica.parts.overview.stats()["conflicts"] == {"replace_finished": 1}
    new = await site.started()
    assert (built(new), uid(new) != uid(old)) == ("e-2", True)
    await site.no_pods_of(old)
    assert len(await site.kubelet.pods(uid(new))) == 1


async def test_a_replaced_build_does_not_come_back(site: Site) -> None:
    """Its replica died before it could note the end, and returns when another has built again since: of one moment, too.

    The Job itself tells, for the other replica's journal is out of reach.
    """
    first, second, third = (event(f"e-{number}", time=NOON) for number in (1, 2, 3))
    await site.build(first)
    await site.finished(succeeded=True)
    for number, another in ((2, second), (3, third)):
        async with Replica.open(site.cluster) as replica:
            assert (await replica.build(another))["status"] == "created", number
        await site.started()
        await site.finished(succeeded=True)
    last = await site.job()

    async with Replica.open(site.cluster) as returned:
        results = [await returned.build(late) for late in (first, second, third)]

    assert [result["status"] for result in results] == ["superseded", "superseded", "adopted"]
    assert version(await site.job()) == version(last)


@pytest.mark.parametrize("policy", ["wait", "replace"])
async def test_two_targets_under_one_name(site: Site, policy: str) -> None:
    """An explicit ``job_name`` may be shared by builds of one third party: one at a time, and neither for the other's.

    The second was requested first; it is built all the same, and when the first comes once more, it has had its turn.
    """
    one = event("e-1", target=("acme", "parser1"), time=NOON + timedelta(minutes=2), data={"job_name": "nightly"})
    other = event("e-2", target=("acme", "parser2"), time=NOON + timedelta(minutes=1), data={"job_name": "nightly"})
    async with Replica.open(site.cluster, onActiveBuild=policy, asyncJobCreator=SOON) as replica:
        assert (await replica.build(one))["status"] == "created"
        await replica.offer(other)
        await replica.waits("e-2", Wait.ACTIVE_BUILD)
        await site.kubelet.finish("nightly", succeeded=True)
        assert (await replica.ended("e-2"))["status"] == "created"
        async with Replica.open(site.cluster) as returned:
            result = await returned.build(one)

    assert result["status"] == "superseded"
    assert built(await site.job("nightly")) == "e-2"


async def test_a_finished_build_is_replaced_in_a_full_namespace(site: Site) -> None:
    """Finished Jobs count against a quota too: the one that ours replaces must not be what keeps ours out."""
    await site.build(at(1))
    await site.finished(succeeded=True)
    await site.namespace.kubectl("create", "quota", "room", "--hard=count/jobs.batch=1")
    used = r"-o=jsonpath={.status.used.count/jobs\.batch}"
    await eventually(lambda: site.namespace.kubectl("get", "quota", "room", used), lambda count: count == "1")

    async with Replica.open(site.cluster, asyncJobCreator=SOON) as replica:
        result = await replica.build(at(2))

    assert result["status"] == "created"
    assert built(await site.job()) == "e-2"


async def test_only_the_build_that_was_read_is_replaced(site: Site) -> None:
    """Between our reading and our deleting, a newer event took the name: its build stays, and ours is superseded."""
    await site.build(at(1))
    old = await site.finished(succeeded=True)

    async def somebody_builds() -> None:
        await site.cluster.delete(NAME, uid(old), foreground=False)
        await site.build(at(3))

    async with Replica.open(Meddled(site.cluster, "get", somebody_builds)) as replica:
        result = await replica.build(at(2))

    assert result["status"] == "superseded"
    assert replica.parts.overview.stats()["conflicts"] == {"replace_finished": 1, "superseded": 1}
    assert built(await site.job()) == "e-3"


async def test_an_active_build_is_waited_for_without_a_worker(site: Site) -> None:
    """The only worker builds for others meanwhile; when the old build has ended, its Job is replaced."""
    old = await site.build(at(1))

    async with Replica.open(site.cluster, asyncJobCreator=SOON) as replica:
        await replica.offer(at(2))
        await replica.waits("e-2", Wait.ACTIVE_BUILD, attempts=2)
        other = await replica.build(event("other", target=("acme", "parser2")))
        waiting = await eventually(lambda: replica.result("e-2"), lambda result: result["status"] == "waiting")
        assert version(await site.job()) == version(old)
        await site.finish()
        result = await replica.ended("e-2")

    assert other["status"] == "created"
    assert waiting["message"] == f"Job {NAME} is still building"
    assert result["status"] == "created"
    new = await site.started()
    assert (built(new), uid(new) != uid(old)) == ("e-2", True)
    await site.no_pods_of(old)


@pytest.mark.parametrize("order", [(2, 3), (3, 2)], ids=["in order", "the newer one first"])
async def test_at_most_one_waits_behind_an_active_build(site: Site, order: tuple[int, int]) -> None:
    """Of two that wait for the same name, the one requested last stays; the other is superseded at once."""
    await site.build(at(1))

    async with Replica.open(site.cluster, asyncJobCreator=SOON) as replica:
        await replica.offer(at(order[0]))
        await replica.waits(f"e-{order[0]}", Wait.ACTIVE_BUILD)
        await replica.offer(at(order[1]))
        superseded = await replica.ended("e-2")
        await site.finish(succeeded=False)
        result = await replica.ended("e-3")
        letters = await replica.letters()

    assert (superseded["status"], result["status"]) == ("superseded", "created")
    assert built(await site.job()) == "e-3"
    assert letters == []


async def test_two_replicas_wait_with_the_same_event(site: Site) -> None:
    """A redelivery to another replica while the first still waits: one builds, the other finds that Job."""
    await site.build(at(1))

    async with (
        Replica.open(site.cluster, asyncJobCreator=SOON) as one,
        Replica.open(site.cluster, asyncJobCreator=SOON) as other,
    ):
        for replica in (one, other):
            await replica.offer(at(2))
        for replica in (one, other):
            await replica.waits("e-2", Wait.ACTIVE_BUILD)
        await site.finish()
        results = [await replica.ended("e-2") for replica in (one, other)]

    assert sorted(result["status"] for result in results) == ["adopted", "created"]
    assert built(await site.job()) == "e-2"


async def test_newest_wins_but_two_never_run_at_once(site: Site) -> None:
    """``onActiveBuild: replace``: the name stays taken until the old Pod is gone, however long that takes."""
    old = await site.build(at(1))

    async with Replica.open(site.cluster, onActiveBuild="replace", asyncJobCreator=SOON) as replica:
        async with site.kubelet.pods_held(uid(old)):
            await replica.offer(at(2))
            await replica.waits("e-2", Wait.DELETION, attempts=4)
            leaving = await site.job()
            assert (uid(leaving), job_state(leaving)) == (uid(old), JobState.DELETING)
            assert len(await site.kubelet.pods(uid(old))) == 1
        result = await replica.ended("e-2")

    assert result["status"] == "created"
    assert await site.kubelet.pods(uid(old)) == []
    new = await site.started()
    assert (built(new), uid(new) != uid(old)) == ("e-2", True)
    conflicts = replica.parts.overview.stats()["conflicts"]
    assert (conflicts["replace_active"], conflicts["wait_for_deletion"] >= 3) == (1, True)


async def test_what_is_being_deleted_is_waited_for(site: Site) -> None:
    """Somebody deletes a build by hand: ours follows as soon as the name is free."""
    async with Replica.open(site.cluster, asyncJobCreator=SOON) as replica:
        async with site.left_behind(at(1), JobState.DELETING) as old:
            await replica.offer(at(2))
            await replica.waits("e-2", Wait.DELETION, attempts=2)
            assert version(await site.job()) == version(old)
        result = await replica.ended("e-2")

    assert result["status"] == "created"
    assert built(await site.job()) == "e-2"
    await site.no_pods_of(old)


@pytest.mark.parametrize("policy", ["wait", "replace"])
async def test_a_strangers_job_is_never_touched(site: Site, policy: str) -> None:
    """Without our label it is not ours, even if it is finished: a dead letter says so, and nothing is deleted."""
    await site.namespace.create(a_job(NAME))
    await site.started(NAME)
    stranger = await site.finished(succeeded=True)

    async with Replica.open(site.cluster, onActiveBuild=policy) as replica:
        result = await replica.build(at(1))
        (letter,) = await replica.letters()

    said = f'jobs.batch "{NAME}" already exists'
    message = f"Job {NAME} exists and is not this third party's build; it was not touched: {said}"
    assert (result["status"], result["reason"], result["message"]) == ("failed", "name_taken", message)
    assert version(await site.job()) == version(stranger)
    assert len(await site.kubelet.pods(uid(stranger))) == 1
    assert (letter.reason, letter.message) == (FailureReason.NAME_TAKEN, message)
    assert (letter.error, letter.attributes["id"]) == ("AlreadyExists 409", "e-1")


@pytest.mark.parametrize("policy", ["wait", "replace"])
async def test_another_third_partys_job_is_never_touched(site: Site, policy: str) -> None:
    """A ``job_name`` of one's own choice gives nobody a hand on somebody else's build."""
    await site.cluster.create(job_of(event("e-1", target=("globex", "parser1"), data={"job_name": "nightly"})))
    before = await site.started("nightly")

    async with Replica.open(site.cluster, onActiveBuild=policy) as replica:
        result = await replica.build(event("e-2", time=NOON + timedelta(hours=1), data={"job_name": "nightly"}))
        letters = await replica.letters()

    assert (result["status"], result["reason"], result["job_name"]) == ("failed", "name_taken", "nightly")
    assert version(await site.job("nightly")) == version(before)
    assert [letter.reason for letter in letters] == [FailureReason.NAME_TAKEN]


async def test_a_storm_of_events_for_one_target(site: Site) -> None:
    """Fifty wishes for one target through two replicas: one build at a time, and the last wish is what is built."""
    async with (
        Replica.open(site.cluster, asyncJobCreator=SOON | {"workerCount": 5}) as one,
        Replica.open(site.cluster, asyncJobCreator=SOON | {"workerCount": 5}) as other,
    ):
        for minute in range(50):
            await (one, other)[minute % 2].offer(at(minute))
        seen: list[str] = []

        async def play_the_kubelet() -> bool:
            job = await site.cluster.get(NAME)
            if job is None:  # between the end of one and the beginning of the next
                return False
            if uid(job) not in seen and job_state(job) is JobState.ACTIVE:
                seen.append(uid(job))
                await site.finish()
            pods = await site.namespace.read("pods")
            running = [pod for pod in pods if pod["status"]["phase"] == "Pending"]
            assert len(running) <= 1
            return built(job) == "e-49" and not one.parts.pool.unfinished() and not other.parts.pool.unfinished()

        await eventually(lambda: site.cluster.get(NAME), bool)
        await eventually(play_the_kubelet, bool)
        results = await asyncio.gather(*((one, other)[minute % 2].result(f"e-{minute}") for minute in range(50)))

    statuses = [result["status"] for result in results]
    assert statuses[49] == "created"
    assert set(statuses) == {"created", "superseded"}
    assert statuses.count("created") == len(seen)
