"""How the real cluster's client finds the API server, and what it does when its token is refused."""

import asyncio
import json
from pathlib import Path

import pytest

from builder.adapters.kubernetes import KubernetesCluster
from builder.errors import Denied, StartError
from builder.settings import Kubernetes
from tests.scripted_api import ScriptedApi, ScriptedServer, http, refusal, write_kubeconfig

JOB = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a-job"}}


@pytest.fixture
def api(tmp_path: Path) -> ScriptedApi:
    """Its kubeconfig names a token file, as a Pod's own credentials do."""
    return ScriptedApi(tmp_path)


async def refused(cluster: KubernetesCluster) -> tuple[int | None, str]:
    """Status and words with which a creation is denied."""
    with pytest.raises(Denied) as denied:
        await cluster.create(JOB)
    return denied.value.status, str(denied.value)


async def test_a_token_that_was_replaced(api: ScriptedApi) -> None:
    """Tokens live an hour. The call that first meets a 401 reads the new one and goes on as if nothing had been."""
    async with api.replying(http(201), http(401), http(201), http(201)) as (cluster, server):
        await cluster.create(JOB)
        (api.folder / "token").write_text("second\n")
        await cluster.create(JOB)
        await cluster.create(JOB)

    sent = [request.headers["authorization"] for request in server.requests]
    assert sent == ["Bearer first", "Bearer first", "Bearer second", "Bearer second"]


async def test_a_token_from_a_program(api: ScriptedApi) -> None:
    """Cloud providers' kubeconfigs name a program; it is asked again when its token is refused, whatever it promised."""
    credential = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": "%s", "expirationTimestamp": "2999-01-01T00:00:00Z"},
    }
    script = f"printf '{json.dumps(credential)}' $(cat {api.folder}/token)"
    program = {"apiVersion": credential["apiVersion"], "command": "sh", "args": ["-c", script]}
    api.user = {"exec": program}
    async with api.replying(http(201), http(401), http(201)) as (cluster, server):
        await cluster.create(JOB)
        (api.folder / "token").write_text("second")
        await cluster.create(JOB)

    sent = [request.headers["authorization"] for request in server.requests]
    assert sent == ["Bearer first", "Bearer first", "Bearer second"]


async def test_many_calls_meet_the_replaced_token_at_once(api: ScriptedApi) -> None:
    """Each goes on with the new token."""
    async with api.replying(*[http(401)] * 5, *[http(201)] * 5) as (cluster, server):
        (api.folder / "token").write_text("second")
        await asyncio.gather(*(cluster.create(JOB) for _ in range(5)))

    sent = [request.headers["authorization"] for request in server.requests]
    assert sent == ["Bearer first"] * 5 + ["Bearer second"] * 5


async def test_a_token_that_is_refused(api: ScriptedApi) -> None:
    """A 401 that reading the file again does not cure is for good, and is asked about once."""
    async with api.replying(refusal(401, "Unauthorized", "Unauthorized")) as (cluster, server):
        denied = await refused(cluster)

    assert denied == (401, "Unauthorized")
    assert len(server.requests) == 1


async def test_a_new_token_that_is_refused_too(api: ScriptedApi) -> None:
    """There is no third try."""
    async with api.replying(http(401), http(401, "still no")) as (cluster, server):
        (api.folder / "token").write_text("second")
        denied = await refused(cluster)

    assert denied == (401, "still no")
    assert len(server.requests) == 2


async def test_credentials_that_cannot_be_read_again(api: ScriptedApi) -> None:
    """The 401 stands, whatever has become of the kubeconfig."""
    async with api.replying(http(401, "no")) as (cluster, _):
        (api.folder / "kubeconfig").write_text("clusters: [")
        denied = await refused(cluster)

    assert denied == (401, "no")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param("", "cannot be used", id="empty"),
        pytest.param("{", "cannot be used", id="no YAML"),
        pytest.param("[]", "cannot be used", id="a list"),
        pytest.param("clusters: []\nusers: []\ncontexts: []\n", "Expected key current-context", id="no context"),
    ],
)
async def test_a_kubeconfig_that_is_broken(api: ScriptedApi, content: str, words: str) -> None:
    """The start stops with the file's name, not with a traceback."""
    environ = write_kubeconfig(api.folder, "https://127.0.0.1:6443")
    (api.folder / "kubeconfig").write_text(content)

    with pytest.raises(StartError) as stopped:
        async with KubernetesCluster.open(api.settings, environ):
            pytest.fail("it opened")

    assert f"the Kubernetes credentials in {environ['KUBECONFIG']} cannot be used" in str(stopped.value)
    assert words in str(stopped.value)


async def test_a_server_that_is_no_url(api: ScriptedApi) -> None:
    """Better at the start than in each call."""
    environ = write_kubeconfig(api.folder, "127.0.0.1:6443")

    with pytest.raises(StartError, match=r"the server '127\.0\.0\.1:6443' is no http or https URL"):
        async with KubernetesCluster.open(api.settings, environ):
            pytest.fail("it opened")


async def test_no_credentials_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what was looked for and the ways out."""
    monkeypatch.setenv("HOME", str(tmp_path))

    with pytest.raises(StartError) as stopped:
        async with KubernetesCluster.open(Kubernetes(), {"KUBECONFIG": ""}):
            pytest.fail("it opened")

    assert str(stopped.value) == (
        "no Kubernetes credentials: this is no Pod (KUBERNETES_SERVICE_HOST and /var/run/secrets/kubernetes.io/"
        f"serviceaccount/token), and there is no kubeconfig at {tmp_path}/.kube/config; set KUBECONFIG, or start "
        "without Kubernetes (cluster: memory)"
    )


@pytest.mark.parametrize(("setting", "namespace"), [("from-setting", "from-setting"), (None, "from-context")])
async def test_the_namespace(tmp_path: Path, setting: str | None, namespace: str) -> None:
    """The setting wins over the kubeconfig's context."""
    environ = write_kubeconfig(tmp_path, "http://127.0.0.1:1")
    async with KubernetesCluster.open(Kubernetes(namespace=setting), environ) as cluster:
        assert cluster.namespace == namespace


async def test_a_proxy_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster behind a proxy is reached as curl and kubectl reach it."""
    async with ScriptedServer(http(200, "ok")).running() as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        environ = write_kubeconfig(tmp_path, "http://api.example.com:6443")
        async with KubernetesCluster.open(Kubernetes(), environ) as cluster:
            await cluster.probe()

    assert [request.path for request in proxy.requests] == ["http://api.example.com:6443/readyz"]
