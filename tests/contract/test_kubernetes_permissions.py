"""The real cluster as a Pod meets it: a mounted token that changes, few permissions, quotas, namespaces that go away."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from control_plane import ControlPlane
from kubernetes_asyncio.config import incluster_config
from yarl import URL

from builder.adapters.kubernetes import KubernetesCluster, access
from builder.errors import AlreadyExists, ClusterError, Denied, QuotaExceeded, Transient, Unreachable
from builder.settings import Kubernetes
from tests.contract.harness import a_job, eventually

pytestmark = pytest.mark.integration


class Pod:
    """The files that the kubelet mounts, for one service account of one namespace."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.plane = plane
        self.namespace = plane.create_namespace("pod")
        self._token = folder / "token"
        (folder / "namespace").write_text(self.namespace)
        (folder / "ca.crt").write_bytes(plane.ca_file.read_bytes())
        for account in ("builder", "nobody"):
            self.kubectl("create", "serviceaccount", account)
        self.kubectl("create", "role", "builder", "--verb=create,get,delete", "--resource=jobs.batch")
        self.kubectl("create", "rolebinding", "b", "--role=builder", f"--serviceaccount={self.namespace}:builder")

    def kubectl(self, *args: str) -> str:
        """As the admin, in the Pod's namespace."""
        return self.plane.kubectl(f"--namespace={self.namespace}", *args)

    def mount(self, account: str) -> None:
        """Put a fresh token of this service account in place, as the kubelet does before the old one ends."""
        self._token.write_text(self.kubectl("create", "token", account).strip())

    def mount_garbage(self) -> None:
        """A token that the API server does not know, or not any more."""
        self._token.write_text("garbage")

    @asynccontextmanager
    async def cluster(self, namespace: str | None = None) -> AsyncIterator[KubernetesCluster]:
        """What the service opens in this Pod."""
        url = URL(self.plane.url)
        environ = {"KUBERNETES_SERVICE_HOST": str(url.host), "KUBERNETES_SERVICE_PORT": str(url.port)}
        async with KubernetesCluster.open(Kubernetes(namespace=namespace), environ) as cluster:
            yield cluster


@pytest.fixture
def pod(control_plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pod:
    """A Pod of the service account ``builder``, which may do what the service needs and nothing else."""
    if control_plane.binaries.kube_controller_manager is None:
        pytest.skip("KUBEBUILDER_ASSETS has no kube-controller-manager, and nobody would count quotas")
    monkeypatch.setattr(access, "SERVICE_ACCOUNT", tmp_path)
    made = Pod(control_plane, tmp_path)
    made.mount("builder")
    return made


async def refusal(cluster: KubernetesCluster) -> tuple[type[ClusterError], int | None, str]:
    """How a creation ends that must fail."""
    with pytest.raises(ClusterError) as error:
        await cluster.create(a_job())
    return type(error.value), error.value.status, str(error.value)


async def test_three_verbs_are_enough(pod: Pod) -> None:
    """The Role that we ship needs create, get and delete of Jobs, and nothing for probing and asking what is missing."""
    async with pod.cluster() as cluster:
        await cluster.probe()
        assert (cluster.namespace, await cluster.missing_permissions()) == (pod.namespace, [])
        await cluster.create(a_job())
        job = await cluster.get("a-job")
        assert job is not None
        await cluster.delete("a-job", job["metadata"]["uid"], foreground=False)
        assert await cluster.get("a-job") is None


async def test_without_permissions(pod: Pod) -> None:
    """The check names what is missing, and a Job is denied in RBAC's own words; the server answers all the same."""
    pod.mount("nobody")
    async with pod.cluster() as cluster:
        await cluster.probe()
        missing = await cluster.missing_permissions()
        denied = await refusal(cluster)

    assert missing == [f"{verb} jobs.batch in namespace {pod.namespace}" for verb in ("create", "get", "delete")]
    who = f'User "system:serviceaccount:{pod.namespace}:nobody"'
    what = f'cannot create resource "jobs" in API group "batch" in the namespace "{pod.namespace}"'
    assert denied == (Denied, 403, f"jobs.batch is forbidden: {who} {what}")


async def test_a_server_that_starts(pod: Pod) -> None:
    """In its first moments the API server forbids what it will allow: no call may take that for a denial.

    Seen with 1.36: 403 for 0.7 to 2 s, in the same words as below, and /readyz, /version and reviews forbidden too.
    """
    seen: set[type[ClusterError]] = set()
    async with pod.cluster() as cluster:
        await cluster.probe()
        pod.plane.stop_apiserver()
        start = asyncio.create_task(asyncio.to_thread(pod.plane.start_apiserver))
        await eventually(lambda: created(cluster, seen), bool)
        await start

    assert Unreachable in seen
    assert seen <= {Unreachable, Transient}


async def created(cluster: KubernetesCluster, seen: set[type[ClusterError]]) -> bool:
    """True when a creation has worked; else its error is among those seen."""
    try:
        await cluster.create(a_job())
    except AlreadyExists:
        return True  # the connection broke after the deed
    except ClusterError as exc:
        seen.add(type(exc))
        return False
    return True


async def test_a_token_that_ended(pod: Pod) -> None:
    """The call that first meets the 401 reads the new token and goes on."""
    pod.mount_garbage()
    async with pod.cluster() as cluster:
        assert await refusal(cluster) == (Denied, 401, "Unauthorized")
        pod.mount("builder")

        await cluster.create(a_job())


async def test_a_token_that_will_end(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it ends, it is read anew once a minute: here the minute is over at once."""
    monkeypatch.setattr(incluster_config, "TOKEN_REFRESH_PERIOD", timedelta(0))
    async with pod.cluster() as cluster:
        assert await cluster.missing_permissions() == []
        pod.mount("nobody")

        assert len(await cluster.missing_permissions()) == 3


async def test_a_certificate_of_somebody_else(pod: Pod, tmp_path: Path) -> None:
    """Whoever answers at the address without the cluster's certificate gets no token from us."""
    kubeconfig = json.loads(pod.plane.kubeconfig.read_text())
    del kubeconfig["clusters"][0]["cluster"]["certificate-authority"]
    (tmp_path / "kubeconfig").write_text(json.dumps(kubeconfig))
    environ = {"KUBECONFIG": str(tmp_path / "kubeconfig")}

    async with KubernetesCluster.open(Kubernetes(), environ) as cluster:
        with pytest.raises(Unreachable, match="certificate verify failed"):
            await cluster.probe()


async def test_a_quota(pod: Pod) -> None:
    """Capacity, not permission: it may be worth waiting for.

    The quota is looked at before the name: where it is used up, a name that is taken is told from one that is free
    only by reading.
    """
    async with pod.cluster() as cluster:
        await cluster.create(a_job())
        pod.kubectl("create", "quota", "q", "--hard=count/jobs.batch=1")
        await eventually(lambda: _used(pod), lambda used: used == "1")
        full = await refusal(cluster)

    words = "exceeded quota: q, requested: count/jobs.batch=1, used: count/jobs.batch=1, limited: count/jobs.batch=1"
    assert full == (QuotaExceeded, 403, f'jobs.batch "a-job" is forbidden: {words}')


async def _used(pod: Pod) -> str:
    return pod.kubectl("get", "quota", "q", r"-o=jsonpath={.status.used.count/jobs\.batch}")


def admin(plane: ControlPlane, namespace: str) -> AbstractAsyncContextManager[KubernetesCluster]:
    """A cluster with all permissions."""
    return KubernetesCluster.open(Kubernetes(namespace=namespace), {"KUBECONFIG": str(plane.kubeconfig)})


async def test_a_namespace_that_goes_away(pod: Pod) -> None:
    """No Job can be made there any more, and the words say why."""
    pod.kubectl("create", "configmap", "stays")
    pod.kubectl("patch", "configmap", "stays", '--patch={"metadata":{"finalizers":["tests.example.com/hold"]}}')
    pod.plane.kubectl("delete", "namespace", pod.namespace, "--wait=false")
    async with admin(pod.plane, pod.namespace) as cluster:
        denied = await refusal(cluster)
    pod.kubectl("patch", "configmap", "stays", '--patch={"metadata":{"finalizers":null}}')

    why = f"unable to create new content in namespace {pod.namespace} because it is being terminated"
    assert denied == (Denied, 403, f'jobs.batch "a-job" is forbidden: {why}')


async def test_a_namespace_that_is_not_there(control_plane: ControlPlane) -> None:
    """A misspelt setting is for good, and the words name it."""
    async with admin(control_plane, "no-such") as cluster:
        assert await refusal(cluster) == (Denied, 404, 'namespaces "no-such" not found')
        assert await cluster.get("a-job") is None


async def test_a_conflict_names_its_kind(pod: Pod) -> None:
    """A taken name is told from every other 409 by the reason that the real server gives."""
    async with pod.cluster() as cluster:
        await cluster.create(a_job())
        assert await refusal(cluster) == (AlreadyExists, 409, 'jobs.batch "a-job" already exists')
