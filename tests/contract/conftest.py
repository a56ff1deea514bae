"""Each contract test runs against the embedded cluster and against a real API server."""

from collections.abc import AsyncIterator

import pytest
from control_plane import ControlPlane

from builder.adapters.kubernetes import KubernetesCluster
from builder.adapters.memory_cluster import MemoryCluster
from builder.settings import Kubernetes, Memory
from tests.contract.harness import Harness, KubernetesHarness, MemoryHarness


@pytest.fixture(params=["memory", pytest.param("kubernetes", marks=pytest.mark.integration)])
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
    if control_plane.binaries.kube_controller_manager is None:
        pytest.skip("KUBEBUILDER_ASSETS has no kube-controller-manager, and nobody would run the Jobs")
    namespace = control_plane.create_namespace("contract")
    environ = {"KUBECONFIG": str(control_plane.kubeconfig)}
    async with KubernetesCluster.open(Kubernetes(namespace=namespace), environ) as cluster:
        yield KubernetesHarness(cluster, control_plane, namespace)
