"""What the real cluster's client makes of every kind of answer, and of none: against a scripted server on loopback."""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.adapters.kubernetes import KubernetesCluster
from builder.adapters.kubernetes.answers import (
    CREATE,
    DELETE,
    READ,
    Answer,
    Rule,
    error_for,
    readable,
    retry_after_seconds,
)
from builder.errors import (
    AlreadyExists,
    ClusterError,
    Conflict,
    Denied,
    QuotaExceeded,
    Transient,
    Unreachable,
)
from builder.settings import Kubernetes
from tests.scripted_api import Reply, ScriptedApi, http, refusal, write_kubeconfig

JOB = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a-job"}}
QUOTA = 'jobs.batch "a-job" is forbidden: exceeded quota: q, requested: count/jobs.batch=1, used: count/jobs.batch=3'
FORBIDDEN = 'jobs.batch is forbidden: User "u" cannot create resource "jobs" in API group "batch" in the namespace "n"'
NEW_QUOTA = 'jobs.batch "a-job" is forbidden: status unknown for quota: q, resources: count/jobs.batch'
UID_DIFFERS = 'Operation cannot be fulfilled on Job.batch "a-job": the UID in the precondition does not match'
QUOTA_RACE = 'Operation cannot be fulfilled on resourcequotas "q": the object has been modified; please try again'

CALLS: Mapping[str, Callable[[KubernetesCluster], Awaitable[object]]] = {
    "create": lambda cluster: cluster.create(JOB),
    "get": lambda cluster: cluster.get("a-job"),
    "delete": lambda cluster: cluster.delete("a-job", "u-1", foreground=False),
    "probe": lambda cluster: cluster.probe(),
}


@pytest.fixture
def api(tmp_path: Path) -> ScriptedApi:
    """What a call meets is laid down by its test."""
    return ScriptedApi(tmp_path)


def told(error: ClusterError) -> tuple[type[ClusterError], int | None, float | None, str]:
    """All that an error says."""
    return type(error), error.status, error.retry_after, str(error)


async def failure(call: Awaitable[object]) -> ClusterError:
    """The error that the call ends with."""
    with pytest.raises(ClusterError) as raised:
        await call
    return raised.value


@pytest.mark.parametrize(
    ("call", "reply", "error", "retry_after", "message"),
    [
        ("create", refusal(409, "AlreadyExists", "already exists"), AlreadyExists, None, "already exists"),
        ("create", refusal(409, "Conflict", QUOTA_RACE), Transient, None, QUOTA_RACE),
        ("create", http(409, "who knows"), Transient, None, "who knows"),
        ("delete", refusal(409, "Conflict", UID_DIFFERS), Conflict, None, UID_DIFFERS),
        ("create", refusal(404, "NotFound", 'namespaces "n" not found'), Denied, None, 'namespaces "n" not found'),
        ("create", refusal(403, "Forbidden", QUOTA), QuotaExceeded, None, QUOTA),
        ("create", refusal(403, "Forbidden", NEW_QUOTA), QuotaExceeded, None, NEW_QUOTA),
        ("create", refusal(403, "Forbidden", FORBIDDEN), Denied, None, FORBIDDEN),
        ("get", refusal(403, "Forbidden", FORBIDDEN), Denied, None, FORBIDDEN),
        ("delete", refusal(403, "Forbidden", FORBIDDEN), Denied, None, FORBIDDEN),
        ("create", refusal(400, "BadRequest", "cannot unmarshal"), Denied, None, "cannot unmarshal"),
        ("create", refusal(405, "MethodNotAllowed", "no"), Denied, None, "no"),
        ("get", refusal(410, "Expired", "too old"), Denied, None, "too old"),
        ("create", refusal(413, "RequestEntityTooLarge", "limit is 3145728"), Denied, None, "limit is 3145728"),
        ("create", refusal(422, "Invalid", "is invalid"), Denied, None, "is invalid"),
        ("create", http(302, Location="https://login.example.com/"), Denied, None, "302 Some Words"),
        ("create", refusal(429, "TooManyRequests", "slow down", Retry_After="7"), Transient, 7.0, "slow down"),
        ("create", http(429, "Too many requests", Retry_After="1"), Transient, 1.0, "Too many requests"),
        ("create", http(408), Transient, None, "408 Some Words"),
        ("create", refusal(500, "InternalError", "etcd"), Transient, None, "etcd"),
        ("get", http(502, "<html>bad\x1b[2J gateway</html>"), Transient, None, "<html>bad\\x1b[2J gateway</html>"),
        ("delete", http(503, "", Retry_After="soon"), Transient, None, "503 Some Words"),
        ("probe", http(500, "[-]etcd failed"), Transient, None, "[-]etcd failed"),
        ("probe", refusal(504, "Timeout", "timed out", Retry_After="2"), Transient, 2.0, "timed out"),
        ("create", http(500, '{"message": 5}'), Transient, None, "500 Some Words"),
        ("create", http(500, '["not", "an object"]'), Transient, None, '["not", "an object"]'),
        ("create", http(500, b"\xff\xfe"), Transient, None, "\N{REPLACEMENT CHARACTER}" * 2),
    ],
)
async def test_what_an_answer_means(
    api: ScriptedApi, call: str, reply: Reply, error: type[ClusterError], retry_after: float | None, message: str
) -> None:
    """The failure table of the design: each answer becomes the one error that has the right consequence."""
    # A denial is asked for twice, with a look at /readyz between.
    async with api.replying(reply, http(200), reply) as (cluster, _):
        raised = await failure(CALLS[call](cluster))

    status = int(reply.data.split(b" ")[1])
    assert told(raised) == (error, status, retry_after, message)


async def test_what_is_not_an_error(api: ScriptedApi) -> None:
    """404 is an answer to a question, and well for something that should go; who may not see /readyz may ask why."""
    gone = refusal(404, "NotFound", 'jobs.batch "a-job" not found')
    replies = [http(201), http(202), http(200, json.dumps(JOB)), gone, http(200), gone, http(200), http(403), http(201)]
    async with api.replying(*replies) as (cluster, _):
        await cluster.create(JOB)
        await cluster.create(JOB)
        read = [await cluster.get("a-job"), await cluster.get("a-job")]
        await cluster.delete("a-job", "u-1", foreground=False)
        await cluster.delete("a-job", "u-1", foreground=False)
        await cluster.probe()
        await cluster.probe()

    assert read == [JOB, None]


@pytest.mark.parametrize(
    "replies",
    [
        pytest.param([http(500, "[-]poststarthook/rbac/bootstrap-roles failed")], id="it says that it is not ready"),
        pytest.param([http(403), http(403)], id="it forbids everything"),
        pytest.param([Reply(then="close")] * 2, id="it went away"),
    ],
)
async def test_a_denial_by_a_server_that_is_starting(api: ScriptedApi, replies: list[Reply]) -> None:
    """An API server knows no roles in its first moments. No event may become a dead letter for that."""
    denial = refusal(403, "Forbidden", FORBIDDEN)
    async with api.replying(denial, *replies) as (cluster, _):
        raised = await failure(cluster.create(JOB))

    assert told(raised) == (Unreachable, None, None, f"the API server is not ready; it says: {FORBIDDEN}")


async def test_a_denial_that_was_none(api: ScriptedApi) -> None:
    """Ready between the denial and the look at it: then only the second answer counts."""
    async with api.replying(refusal(403, "Forbidden", FORBIDDEN), http(200), http(201)) as (cluster, _):
        await cluster.create(JOB)


async def test_a_denial_in_a_hardened_cluster(api: ScriptedApi) -> None:
    """Where /readyz is forbidden too, a server that answers what we may do is ready."""
    denial, review = refusal(403, "Forbidden", FORBIDDEN), http(201, '{"status": {"allowed": false}}')
    async with api.replying(denial, http(403), review, denial) as (cluster, _):
        raised = await failure(cluster.create(JOB))

    assert told(raised) == (Denied, 403, None, FORBIDDEN)


async def test_what_is_sent(api: ScriptedApi) -> None:
    """The right paths, the uid as a precondition and never without a policy: the default would orphan the Pod."""
    async with api.replying(http(201), http(200, "{}"), http(200), http(200), http(200)) as (cluster, server):
        await cluster.create(JOB)
        await cluster.get("a/b?c")
        await cluster.delete("a-job", "u-1", foreground=False)
        await cluster.delete("a-job", "u-1", foreground=True)
        await cluster.probe()

    def options(policy: str) -> dict[str, Any]:
        precondition = {"preconditions": {"uid": "u-1"}}
        return {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy} | precondition

    jobs = "/apis/batch/v1/namespaces/builds/jobs"
    sent = [(request.method, request.path, json.loads(request.body or b"null")) for request in server.requests]
    assert sent == [
        ("POST", jobs, JOB),
        ("GET", f"{jobs}/a%2Fb%3Fc", None),
        ("DELETE", f"{jobs}/a-job", options("Background")),
        ("DELETE", f"{jobs}/a-job", options("Foreground")),
        ("GET", "/readyz", None),
    ]
    headers = server.requests[0].headers
    assert headers["authorization"] == "Bearer first"
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"].startswith("knative-lambda-builder/")
    assert {request.connection for request in server.requests} == {1}, "answers are read to the end: one connection"


async def test_missing_permissions(api: ScriptedApi) -> None:
    """The check names what an administrator must grant, in the words of RBAC."""
    reviews = [{"status": {"allowed": True}}, {"status": {"allowed": False, "denied": True}}, {"status": {}}]
    async with api.replying(*(http(201, json.dumps(review)) for review in reviews)) as (cluster, server):
        missing = await cluster.missing_permissions()

    assert missing == ["get jobs.batch in namespace builds", "delete jobs.batch in namespace builds"]
    asked = [json.loads(request.body)["spec"]["resourceAttributes"] for request in server.requests]
    place = {"namespace": "builds", "group": "batch", "resource": "jobs"}
    assert asked == [place | {"verb": verb} for verb in ("create", "get", "delete")]


@pytest.mark.parametrize("body", [b'{"metadata": ', b"[]", b"", b"<html>", b"\xff"])
async def test_a_job_that_is_no_object(api: ScriptedApi, body: bytes) -> None:
    """A Job that cannot be read is no proof that there is none: ask again."""
    async with api.replying(http(200, body)) as (cluster, _):
        raised = await failure(cluster.get("a-job"))

    assert told(raised) == (Transient, 200, None, f"the answer 200 is no JSON object: {body!r}")


@pytest.mark.parametrize("call", ["create", "get", "delete", "probe"])
@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(Reply(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", then="close"), id="half an answer"),
        pytest.param(Reply(b"HTTP/1.1 200 OK\r\nContent-", then="close"), id="half a header"),
        pytest.param(
            Reply(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", then="reset"), id="reset amid the answer"
        ),
        pytest.param(Reply(then="reset"), id="reset before the answer"),
        pytest.param(Reply(then="close"), id="closed before the answer"),
        pytest.param(Reply(b"I am no HTTP server\r\n\r\n", then="close"), id="no HTTP"),
    ],
)
async def test_a_connection_that_breaks(api: ScriptedApi, call: str, reply: Reply) -> None:
    """Nobody knows whether it happened: try again, and let the name decide."""
    async with api.replying(reply, reply) as (cluster, _):  # aiohttp itself sends a GET or DELETE a second time
        raised = await failure(CALLS[call](cluster))

    assert (type(raised), raised.status, raised.retry_after) == (Transient, None, None)
    assert "127.0.0.1:" in str(raised)
    assert raised.__cause__ is not None


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(Reply(then="hang"), id="no answer"),
        pytest.param(Reply(b"HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\n{", then="hang"), id="half an answer"),
    ],
)
async def test_an_answer_that_never_comes(api: ScriptedApi, reply: Reply) -> None:
    """``kubernetes.requestTimeout`` bounds a whole call, so that a worker never waits for ever."""
    api.settings = Kubernetes.model_validate({"requestTimeout": "100ms"})
    async with api.replying(reply) as (cluster, server):
        raised = await failure(cluster.create(JOB))

    message = f"POST to 127.0.0.1:{server.port}: no answer within 0.1 s"
    assert told(raised) == (Transient, None, None, message)


async def test_nobody_listens(api: ScriptedApi) -> None:
    """An outage is not the request's fault; the message says where nobody was."""
    environ = write_kubeconfig(api.folder, "http://127.0.0.1:1")
    async with KubernetesCluster.open(api.settings, environ) as cluster:
        raised = await failure(cluster.create(JOB))

    assert told(raised) == (Unreachable, None, None, "127.0.0.1:1: Connection refused")
    assert raised.__cause__ is not None


async def test_a_name_that_nobody_knows(api: ScriptedApi) -> None:
    """DNS is part of the way to the server."""
    environ = write_kubeconfig(api.folder, "https://no-such-host.invalid:6443")
    async with KubernetesCluster.open(api.settings, environ) as cluster:
        raised = await failure(cluster.probe())

    assert type(raised) is Unreachable
    assert str(raised).startswith("no-such-host.invalid:6443: ")


async def test_no_tls_there(api: ScriptedApi) -> None:
    """A server that does not speak TLS is none that we can work with."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.0 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        environ = write_kubeconfig(api.folder, f"https://127.0.0.1:{port}")
        async with KubernetesCluster.open(api.settings, environ) as cluster:
            raised = await failure(cluster.probe())

    assert type(raised) is Unreachable
    assert str(raised).startswith(f"127.0.0.1:{port}: [SSL")


async def test_a_connection_that_is_never_made(api: ScriptedApi) -> None:
    """A host that drops packets costs ``kubernetes.connectTimeout`` and no more."""
    api.settings = Kubernetes.model_validate({"connectTimeout": "100ms"})
    with socket.socket() as full:
        # A listener with no room left in its queue, which Linux answers with silence.
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            environ = write_kubeconfig(api.folder, f"http://127.0.0.1:{port}")
            async with KubernetesCluster.open(api.settings, environ) as cluster:
                raised = await failure(cluster.probe())

    assert told(raised) == (Unreachable, None, None, f"127.0.0.1:{port}: no connection within 0.1 s")


@given(
    status=st.integers(0, 999).filter(lambda status: status not in range(200, 300)),
    body=st.one_of(st.binary(), st.text().map(lambda text: json.dumps({"message": text, "reason": text}).encode())),
    rules=st.sampled_from([CREATE, DELETE, READ]),
    retry_after=st.one_of(st.none(), st.text()),
)
def test_every_answer_has_an_error(status: int, body: bytes, rules: tuple[Rule, ...], retry_after: str | None) -> None:
    """Whatever a server, a proxy or an attacker answers: an error of ours, with one short and harmless line."""
    error = error_for(Answer(status, "Words", body, retry_after), rules)

    assert error.status == status
    assert str(error).isprintable()
    assert len(str(error)) <= 503
    assert error.retry_after is None or 0 <= error.retry_after < 10**12


def test_a_long_message_is_cut_in_the_middle() -> None:
    """The API server names the object first and the reason last: both stay."""
    assert readable("a" * 1000 + "z" * 1000) == "a" * 350 + " … " + "z" * 150


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        ("120", 120.0),
        ("Mon, 01 Jan 2024 12:00:30 GMT", 30.0),
        ("Mon, 01 Jan 2024 12:00:30 -0000", 30.0),
        ("Mon, 01 Jan 2024 13:00:30 +0100", 30.0),
        ("Mon, 01 Jan 2024 11:00:00 GMT", 0.0),
        ("Mon, 01 Jan 99999999999999999999 11:00:00 GMT", None),
        ("-1", None),
        ("1.5", None),
        ("", None),
        ("9" * 400, None),
        ("tomorrow", None),
    ],
)
def test_retry_after(value: str | None, seconds: float | None) -> None:
    """A number or a date (RFC 9110); what is neither is no reason to fail, and none to come back before the past."""
    assert retry_after_seconds(value, datetime(2024, 1, 1, 12, tzinfo=UTC)) == seconds
