"""What can go wrong between us and the API server, and what becomes of an event then: one table.

Each row sends one event and has one thing go wrong, for real or by a proxy before the real API server. ``calls`` are
all that was asked of the API server about Jobs; ``tries`` is what the outcome says. In each row there is exactly one
Job of the event, or none and one dead letter with the words of whoever refused; and what else stands in the namespace
is not touched.
"""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from builder.adapters.kubernetes import KubernetesCluster
from builder.events.request import build_request
from builder.jobs.manifest import build_job
from builder.jobs.status import JobState, job_state
from builder.models import Event, Manifest
from builder.settings import Kubernetes
from builder.settings_sources import validate
from tests.building import NOON, event
from tests.contract.harness import KubernetesHarness, a_job, eventually
from tests.fault_proxy import (
    ALWAYS,
    HALF,
    HANG,
    NO_JSON,
    REFUSED,
    RESET,
    Fault,
    FaultProxy,
    after_the_commit,
    answer,
    meanwhile,
    refusal,
)
from tests.integration.namespace import Namespace
from tests.integration.replica import Replica
from tests.integration.service import settings_tree
from tests.integration.test_failures import room_for
from tests.integration.witness import Witness

pytestmark = pytest.mark.integration

EVENT = event("e-2", time=NOON + timedelta(hours=1))
NAME = "kaniko-job-acme-parser1"
POLICY = {"maxRetries": 3, "retryDelay": "10ms", "maxRetryDelay": "50ms"}
IMPATIENT = {"kubernetes": {"requestTimeout": "2s"}}

THROTTLED = answer(429, "Too many requests, please try again later.\n", Content_Type="text/plain", Retry_After="1")
THROTTLED_STATUS = refusal(429, "TooManyRequests", "the server has received too many requests", Retry_After="1")
BROKEN = refusal(500, "InternalError", "Internal error occurred: etcdserver: leader changed")
BAD_GATEWAY = answer(502, "<html><h1>502 Bad Gateway</h1></html>", Content_Type="text/html")
UNAVAILABLE = refusal(503, "ServiceUnavailable", "apiserver not ready")
GATEWAY_TIMEOUT = refusal(504, "Timeout", "Timeout: request did not complete within the allotted timeout")
QUOTA_RACE = refusal(
    409, "Conflict", 'Operation cannot be fulfilled on resourcequotas "room": the object has been modified'
)
GONE = refusal(410, "Expired", "the provided continue parameter is too old")


class Scene:
    """Where a row plays."""

    def __init__(self, namespace: Namespace, proxy: FaultProxy, cluster: KubernetesCluster, kubeconfig: Path) -> None:
        self.namespace = namespace
        self.proxy = proxy
        self.cluster = cluster
        self.kubeconfig = kubeconfig
        self.builds_in = namespace.name
        self.goes = self.full = False
        self._kubelet = KubernetesHarness(cluster, namespace.plane, namespace.name)

    async def bystanders(self) -> dict[str, str]:
        """What must not be touched, and in which version it is: a stranger's Job and another third party's build."""
        jobs = [await self.cluster.get(name) for name in ("a-job", "kaniko-job-globex-parser1")]
        return {job["metadata"]["uid"]: job["metadata"]["resourceVersion"] for job in jobs if job is not None}

    async def earlier_build(self, *, ended: bool) -> Manifest:
        """An earlier event's Job has our name."""
        await self.cluster.create(job_of(event("e-1", time=NOON)))
        if ended:
            await self._kubelet.finish(NAME, succeeded=True)
        wanted = JobState.COMPLETE if ended else JobState.ACTIVE
        job = await eventually(lambda: self.cluster.get(NAME), lambda job: job and job_state(job) is wanted)
        assert job is not None
        return job

    def token(self, token: str) -> None:
        """What the service finds when it reads its token from now on."""
        self.kubeconfig.with_name("token").write_text(token)


def job_of(event: Event) -> Manifest:
    """The Job that the service makes of an event."""
    settings = validate(settings_tree({}))
    return build_job(build_request(event, NOON + timedelta(days=1), settings.build, settings.intake), settings)


Surroundings = Callable[[Scene], Awaitable[object]]


async def as_usual(_scene: Scene) -> None:
    """Nothing special."""


async def our_own_job(scene: Scene) -> None:
    """A redelivery: the Job of this event is there."""
    await scene.cluster.create(job_of(EVENT))


async def a_strangers_job(scene: Scene) -> None:
    """Somebody made a Job of our name by hand."""
    await scene.cluster.create(a_job(NAME))


async def an_ended_build(scene: Scene) -> None:
    """An earlier build of the target, which is over."""
    await scene.earlier_build(ended=True)


async def somebody_is_faster(scene: Scene) -> None:
    """An earlier build is over, and in the moment before we delete it, a newer event's Job takes its place."""
    old = await scene.earlier_build(ended=True)

    async def replace() -> None:
        await scene.cluster.delete(NAME, old["metadata"]["uid"], foreground=False)
        await scene.cluster.create(job_of(event("e-3", time=NOON + timedelta(hours=2))))

    scene.proxy.lay_down("DELETE", meanwhile(replace))


async def a_refused_token(scene: Scene) -> None:
    """The service starts with a token that the API server does not know (any more)."""
    scene.token("refused")


async def a_new_token(scene: Scene) -> None:
    """Meanwhile the kubelet has put another one into the file."""
    scene.token(scene.namespace.plane.token)


async def an_account_without_rights(scene: Scene) -> None:
    """The service account has no Role."""
    scene.token(await scene.namespace.service_account())


async def no_such_namespace(scene: Scene) -> None:
    """The setting names a namespace that is not there."""
    scene.builds_in = "no-such-namespace"


async def a_namespace_that_goes(scene: Scene) -> None:
    """Somebody deletes the namespace, and something in it takes its time to go."""
    held = a_job("held", spec={"suspend": True})
    held["metadata"]["finalizers"] = ["tests.example.com/hold"]
    await scene.cluster.create(held)
    await scene.namespace.kubectl("delete", "namespace", scene.namespace.name, "--wait=false")
    scene.goes = True


async def no_room(scene: Scene) -> None:
    """The quota of Jobs is used up, but for the bystanders'."""
    await room_for(scene.namespace, jobs=2)
    scene.full = True


@dataclass(frozen=True)
class Row:
    """One failure, and what follows. ``once_started`` happens when the service has read its credentials."""

    what: str
    ends: str
    tries: int
    calls: str
    faults: tuple[tuple[str, Fault, int], ...] = ()
    words: str = ""
    surroundings: Surroundings = as_usual
    once_started: Surroundings = as_usual
    settings: dict[str, Any] = field(default_factory=dict)
    outages: int = 0


def once(method: str, fault: Fault) -> tuple[tuple[str, Fault, int], ...]:
    """The next request of this method has bad luck, no other."""
    return ((method, fault, 1),)


def always(method: str, fault: Fault) -> tuple[tuple[str, Fault, int], ...]:
    """Every request of this method does."""
    return ((method, fault, ALWAYS),)


FOUR = "4 tries failed; the last: "
TWICE, FOUR_TIMES = "POST POST", "POST POST POST POST"
FOUND = "POST POST GET"
"""The second create meets the Job that the first has made."""

# fmt: off
TABLE = [
    # What                                        ends as               tries  calls about Jobs   how
    Row("429 in plain text with Retry-After",     "created",            2, TWICE, once("POST", THROTTLED)),
    Row("429 as a Status",                        "created",            2, TWICE, once("POST", THROTTLED_STATUS)),
    Row("429 in plain text, always",              "retries_exhausted",  4, FOUR_TIMES, always("POST", THROTTLED), FOUR + "Too many requests, please try again later."),
    Row("429 when the name is looked at",         "adopted",            2, "POST GET POST GET", once("GET", THROTTLED), surroundings=our_own_job),
    Row("500",                                    "created",            2, TWICE, once("POST", BROKEN)),
    Row("500, always",                            "retries_exhausted",  4, FOUR_TIMES, always("POST", BROKEN), FOUR + "Internal error occurred: etcdserver: leader changed"),
    Row("500 although it was done",               "adopted",            2, FOUND, once("POST", after_the_commit(BROKEN))),
    Row("502 from a proxy, as a web page",        "created",            2, TWICE, once("POST", BAD_GATEWAY)),
    Row("502, always",                            "retries_exhausted",  4, FOUR_TIMES, always("POST", BAD_GATEWAY), FOUR + "<html><h1>502 Bad Gateway</h1></html>"),
    Row("503 from a server that is ready",        "created",            2, TWICE, once("POST", UNAVAILABLE)),
    Row("503, always",                            "retries_exhausted",  4, FOUR_TIMES, always("POST", UNAVAILABLE), FOUR + "apiserver not ready"),
    Row("504",                                    "created",            2, TWICE, once("POST", GATEWAY_TIMEOUT)),
    Row("504, always",                            "retries_exhausted",  4, FOUR_TIMES, always("POST", GATEWAY_TIMEOUT), FOUR + "Timeout: request did not complete within the allotted timeout"),
    Row("504 although it was done",               "adopted",            2, FOUND, once("POST", after_the_commit(GATEWAY_TIMEOUT))),
    Row("504 when an ended build is deleted",     "created",            2, "POST GET DELETE POST GET DELETE POST", once("DELETE", GATEWAY_TIMEOUT), surroundings=an_ended_build),
    Row("504 although it was deleted",            "created",            2, "POST GET DELETE POST", once("DELETE", after_the_commit(GATEWAY_TIMEOUT)), surroundings=an_ended_build),
    Row("the connection is refused",              "created",            2, TWICE, once("POST", REFUSED), outages=1),
    Row("reset before the request",               "created",            2, TWICE, once("POST", RESET)),
    Row("reset, always",                          "retries_exhausted",  4, FOUR_TIMES, always("POST", RESET), FOUR + "POST to 127.0.0.1:"),
    Row("reset after the commit",                 "adopted",            2, FOUND, once("POST", after_the_commit(RESET))),
    Row("never answers",                          "created",            2, TWICE, once("POST", HANG), settings=IMPATIENT),
    Row("never answers although it was done",     "adopted",            2, FOUND, once("POST", after_the_commit(HANG)), settings=IMPATIENT),
    Row("half an answer",                         "adopted",            2, FOUND, once("POST", HALF)),
    Row("half an answer about the name",          "adopted",            2, "POST GET POST GET", once("GET", HALF), surroundings=our_own_job),
    Row("half an answer to a delete",             "created",            1, "POST GET DELETE DELETE POST", once("DELETE", HALF), surroundings=an_ended_build),
    Row("invalid JSON about a created Job",       "created",            1, "POST", once("POST", NO_JSON)),
    Row("invalid JSON about the name",            "adopted",            2, "POST GET POST GET", once("GET", NO_JSON), surroundings=our_own_job),
    Row("invalid JSON about the name, always",    "retries_exhausted",  4, "POST GET POST GET POST GET POST GET", always("GET", NO_JSON), FOUR + "the answer 200 is no JSON object: ", surroundings=an_ended_build),
    Row("401 once: the token was rotated",        "created",            1, TWICE, surroundings=a_refused_token, once_started=a_new_token),
    Row("401, always",                            "unauthorized",       1, "POST", words="Unauthorized", surroundings=a_refused_token),
    Row("403: no permission",                     "forbidden",          1, TWICE, words='cannot create resource "jobs" in API group "batch" in the namespace "', surroundings=an_account_without_rights),
    Row("403: the quota is used up",              "quota",              1, "POST GET", words="exceeded quota: room, requested: count/jobs.batch=1, used: count/jobs.batch=2, limited: count/jobs.batch=2", surroundings=no_room, settings={"asyncJobCreator": {"capacityTimeout": "0s"}}),
    Row("403: the namespace is terminating",      "forbidden",          1, TWICE, words="because it is being terminated", surroundings=a_namespace_that_goes),
    Row("404: no such namespace",                 "namespace_not_found", 1, "POST", words='namespaces "no-such-namespace" not found', surroundings=no_such_namespace),
    Row("409: the name is our own",               "adopted",            1, "POST GET", surroundings=our_own_job),
    Row("409: the name is a stranger's",          "name_taken",         1, "POST GET", words=f"Job {NAME} exists and is not this third party's build; it was not touched", surroundings=a_strangers_job),
    Row("409: a race for a quota",                "created",            2, TWICE, once("POST", QUOTA_RACE)),
    Row("409 on delete: somebody was faster",     "superseded",         1, "POST GET DELETE POST GET", surroundings=somebody_is_faster),
    Row("410",                                    "invalid_job",        1, "POST", always("POST", GONE), "the provided continue parameter is too old"),
    Row("422: Kubernetes will not have the Job",  "invalid_job",        1, "POST", words="must be less than or equal to memory limit of 2Gi", settings={"kaniko": {"requests": {"memory": "4Gi"}}}),
]
# fmt: on


@pytest.fixture
async def scene(namespace: Namespace, tmp_path: Path) -> AsyncIterator[Scene]:
    """A namespace with two bystanders, and a way to it that may be trouble."""
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(FaultProxy.open(namespace.plane))
        settings = Kubernetes(namespace=namespace.name)
        admin = await stack.enter_async_context(KubernetesCluster.open(settings, namespace.environ))
        (tmp_path / "token").write_text(namespace.plane.token)
        kubeconfig = namespace.kubeconfig(tmp_path / "kubeconfig", token_file=tmp_path / "token", server=proxy.url)
        scene = Scene(namespace, proxy, admin, kubeconfig)
        await admin.create(a_job(spec={"suspend": True}))
        await admin.create(job_of(event("e-1", target=("globex", "parser1"))))
        await eventually(lambda: admin.get("a-job"), lambda job: job and job["status"].get("conditions"))
        await eventually(
            lambda: admin.get("kaniko-job-globex-parser1"), lambda job: job and job["status"].get("active")
        )
        yield scene


@asynccontextmanager
async def service(scene: Scene, row: Row) -> AsyncIterator[Replica]:
    """The service in its surroundings."""
    await row.surroundings(scene)
    sections = {"asyncJobCreator": POLICY, "kubernetes": {"namespace": scene.builds_in}}
    sections |= {name: sections.get(name, {}) | section for name, section in row.settings.items()}
    settings = validate(settings_tree(sections)).kubernetes
    async with (
        KubernetesCluster.open(settings, {"KUBECONFIG": str(scene.kubeconfig)}) as cluster,
        Replica.open(cluster, **sections) as replica,
    ):
        await row.once_started(scene)
        for method, fault, times in row.faults:
            scene.proxy.lay_down(method, fault, times)
        yield replica


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.what)
async def test_what_becomes_of_an_event(scene: Scene, row: Row) -> None:
    """See the table."""
    with capture_logs() as log:
        async with Witness.open(scene.namespace) as witness, service(scene, row) as replica:
            before = await scene.bystanders()
            await replica.offer(EVENT)
            if row.outages:
                await eventually(replica.outages, lambda count: count == row.outages)
                await scene.proxy.listen()
            result = await replica.ended(EVENT.id)
            stats = replica.parts.overview.stats()
            letters = [(one.reason.value, one.message, one.error != "") for one in await replica.letters()]
            if scene.full:
                await room_for(scene.namespace, jobs=10)
            jobs = await witness.made() if not scene.goes else Counter()
            after = await scene.bystanders()

    calls = [request.split()[0] for request in scene.proxy.requests if "/jobs" in request]
    well = row.ends in {"created", "adopted", "superseded"}
    ending = (row.ends, None) if well else ("failed", row.ends)
    assert (result["status"], result["reason"], result["attempts"], " ".join(calls)) == (*ending, row.tries, row.calls)
    assert letters == ([] if well else [(row.ends, result["message"], True)])
    assert row.words in str(result["message"])
    assert jobs[EVENT.id] == (row.ends in {"created", "adopted"})
    assert scene.goes or after == before
    assert (stats["api_server"]["outages"], stats["retries"]) == (row.outages, retries(row))
    assert [line["seconds"] for line in log if line["event"] == "item_waits" and line["seconds"] < floor(row)] == []


def retries(row: Row) -> int:
    """An outage counts against nobody, and the last try is not repeated."""
    return row.tries - 1 - row.outages


def floor(row: Row) -> float:
    """``Retry-After`` is never undercut."""
    return 1.0 if row.what.startswith("429") else 0.0
