"""Each contract test runs against the embedded cluster and a real API server, straight and through the fault proxy."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from control_plane import ControlPlane

from builder.adapters.kubernetes import KubernetesCluster
from builder.adapters.memory_cluster import MemoryCluster
from builder.settings import Kubernetes, Memory
from tests.contract.harness import Harness, KubernetesHarness, MemoryHarness
from tests.fault_proxy import FaultProxy

IMPLEMENTATIONS = [
    "memory",
    pytest.param("kubernetes", marks=pytest.mark.integration),
    pytest.param("proxied", marks=pytest.mark.integration),
]


@pytest.fixture(params=IMPLEMENTATIONS)
def harness(request: pytest.FixtureRequest) -> Harness:
    """One implementation on an empty namespace, where builds never end by themselves."""
    made: Harness = request.getfixturevalue(f"{request.param}_harness")
    return made


@pytest.fixture
async def memory_harness() -> AsyncIterator[Harness]:
    """The embedded cluster."""
    settings = Memory.model_validate({"pendingTime": "1h", "buildTime": "1h", "deletionTime": "300ms"})
    async with MemoryCluster(settings) as cluster:
        yield MemoryHarness(cluster)


@pytest.fixture
async def kubernetes_harness(control_plane: ControlPlane) -> AsyncIterator[Harness]:
    """The real one."""
    async with real_harness(control_plane, control_plane.kubeconfig) as harness:
        yield harness


@pytest.fixture
async def proxied_harness(control_plane: ControlPlane, tmp_path: Path) -> AsyncIterator[Harness]:
    """The real one, through the proxy that other tests make trouble with: without a fault it changes nothing."""
    async with FaultProxy.open(control_plane) as proxy:
        config = json.loads(control_plane.kubeconfig.read_text())
        config["clusters"][0]["cluster"]["server"] = proxy.url
        (tmp_path / "proxied").write_text(json.dumps(config))
        async with real_harness(control_plane, tmp_path / "proxied") as harness:
            yield harness
        assert proxy.requests


@asynccontextmanager
async def real_harness(plane: ControlPlane, kubeconfig: Path) -> AsyncIterator[Harness]:
    """An empty namespace of the real API server, reached by this file."""
    if plane.binaries.kube_controller_manager is None:
        pytest.skip("KUBEBUILDER_ASSETS has no kube-controller-manager, and nobody would run the Jobs")
    namespace = plane.create_namespace("contract")
    async with KubernetesCluster.open(Kubernetes(namespace=namespace), {"KUBECONFIG": str(kubeconfig)}) as cluster:
        yield KubernetesHarness(cluster, plane, namespace)
