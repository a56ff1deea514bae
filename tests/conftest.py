"""What several kinds of tests share."""

import asyncio
import os
from collections.abc import Iterator

import hypothesis
import pytest
import structlog
from broker import Broker, missing
from control_plane import ControlPlane, Missing, find_binaries

from tests.broker_parts import Vhost

# On a busy machine one example may take its time; what hangs is stopped by the test's own limit.
hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("patient")


@pytest.fixture(scope="session", autouse=True)
def no_stray_loop() -> None:
    """Looptime asks for the current loop before each test: without this, it makes one that nobody closes."""
    asyncio.set_event_loop(None)


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """A command that ran in one test must not set up the log of the next."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """A real API server with etcd and controllers, one for the whole session: make a namespace for each test.

    Skips where the programs are missing, but fails in CI: there, a test that silently does not run is a lie.
    """
    binaries = find_binaries()
    if isinstance(binaries, Missing):
        absent = pytest.fail if "CI" in os.environ else pytest.skip
        absent(f"needs a real Kubernetes API: {binaries.reason}")
    with ControlPlane(binaries) as plane:
        yield plane


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """A real RabbitMQ, one for the whole session: use a ``vhost`` of it. Skips, or fails in CI, where there is none."""
    if (why := missing()) is not None:
        absent = pytest.fail if "CI" in os.environ else pytest.skip
        absent(f"needs a real RabbitMQ: {why}")
    with Broker(tls=True) as broker:
        yield broker


@pytest.fixture
def vhost(broker: Broker) -> Iterator[Vhost]:
    """A part of the broker that is the test's own."""
    vhost = Vhost(broker, broker.create_vhost("test"))
    yield vhost
    broker.delete_vhost(vhost.name)
