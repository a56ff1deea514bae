"""The real thing: a namespace of a real API server for each test, and the service as a process on it."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from control_plane import ControlPlane

from tests.integration.namespace import Namespace
from tests.integration.service import Services


@pytest.fixture(scope="session")
def plane(control_plane: ControlPlane) -> ControlPlane:
    """The control plane that all tests share, with its controllers."""
    if control_plane.binaries.kube_controller_manager is None:
        pytest.skip("KUBEBUILDER_ASSETS has no kube-controller-manager, and nobody would run the Jobs")
    return control_plane


@pytest.fixture
def namespace(plane: ControlPlane) -> Namespace:
    """A place of the test's own."""
    return Namespace(plane, plane.create_namespace("integration"))


@pytest.fixture(scope="session")
def another_plane(plane: ControlPlane) -> Iterator[ControlPlane]:
    """A second control plane, where outages and crowds of Jobs disturb nobody."""
    with ControlPlane(plane.binaries) as another:
        yield another


@pytest.fixture
def namespace_apart(another_plane: ControlPlane) -> Iterator[Namespace]:
    """A place on the second control plane; if a test stops its API server, the next one finds it running again."""
    yield Namespace(another_plane, another_plane.create_namespace("integration"))
    another_plane.start_apiserver()


@pytest.fixture
async def services(tmp_path: Path) -> AsyncIterator[Services]:
    """Starts services; none outlives its test."""
    services = Services(tmp_path)
    try:
        yield services
    finally:
        await services.close()
