"""How the service stops, and why it does not start: what the kubelet and a person at a terminal meet."""

import json
import re
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.harness import eventually
from tests.integration.messages import build_of
from tests.integration.namespace import Namespace
from tests.integration.service import REGISTRY, Service, Services, run
from tests.integration.slow_api import SlowApi
from tests.scripted_api import Reply, ScriptedServer

pytestmark = pytest.mark.integration

EVENTS = 100


@pytest.fixture
async def slow_api(namespace_apart: Namespace) -> AsyncIterator[SlowApi]:
    """The API server behind a way on which its answers can be held up."""
    async with SlowApi.open(namespace_apart.plane.url) as door:
        yield door


async def with_a_full_queue(
    namespace_apart: Namespace, services: Services, slow_api: SlowApi, folder: Path, **policy: Any
) -> Service:
    """A service that has accepted a hundred events and still waits for the API server's first answer."""
    service = await services.start(
        namespace_apart,
        kubeconfig=namespace_apart.kubeconfig(folder / "slow", server=slow_api.url),
        journal=folder / "journal.sqlite3",
        asyncJobCreator={"workerCount": 1, "maxQueueSize": EVENTS, **policy},
    )
    slow_api.hold()
    statuses = await service.statuses(*(build_of(f"parser{number}") for number in range(EVENTS)))
    stats = await service.stats()
    assert statuses == [202] * EVENTS
    assert (stats["queue_size"], stats["active_workers"]) == (EVENTS - 1, 1)
    return service


async def test_sigterm_drains_what_was_accepted(
    namespace_apart: Namespace, services: Services, slow_api: SlowApi, tmp_path: Path
) -> None:
    """Meanwhile senders are sent elsewhere, and the readiness probe takes the Pod out of the Service."""
    service = await with_a_full_queue(namespace_apart, services, slow_api, tmp_path)

    service.signal(signal.SIGTERM)
    (draining,) = await service.until_logged("draining")
    refused = (await service.send(build_of("late")))[0]
    ready = await service.http.get("/health/ready")
    live = await service.http.get("/health/live")
    stats = await service.stats()
    slow_api.release()
    code = await service.exit_code(within=25)

    assert draining["items"] == EVENTS
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    assert refused.headers["Content-Type"] == "application/problem+json"
    assert (ready.status_code, ready.json()["detail"], live.status_code) == (503, "shutting down", 200)
    assert (stats["is_shutdown"], stats["refused"]["draining"]) == (True, 1)
    assert code == 0
    assert sorted(await namespace_apart.jobs()) == sorted(f"kaniko-job-acme-parser{number}" for number in range(EVENTS))
    assert service.logged("left_unfinished") == []
    assert [line["left"] for line in service.logged("stopped")] == [0]


async def test_what_cannot_be_drained_in_time_is_named(
    namespace_apart: Namespace, services: Services, slow_api: SlowApi, tmp_path: Path
) -> None:
    """Each event has its Job or a line in the log, and the end comes before the kubelet's patience ends."""
    service = await with_a_full_queue(namespace_apart, services, slow_api, tmp_path, drainTimeout="1s")
    slow_api.delay = 0.05

    service.signal(signal.SIGTERM)
    await service.until_logged("draining")
    slow_api.release()
    code = await service.exit_code(within=10)

    assert code == 0
    left = {line["event_id"] for line in service.logged("left_unfinished")}
    done = {line["event_id"] for line in service.logged("job_created")}
    made = {
        job["metadata"]["annotations"]["build.notifi.network/event-id"]
        for job in (await namespace_apart.jobs()).values()
    }
    everything = {f"parser{number}" for number in range(EVENTS)}
    assert (bool(left), bool(done)) == (True, True)
    assert (left | done, left & done) == (everything, set())
    assert done <= made
    assert len(made - done) <= 1  # the one that was under way: named, and adopted by the next service
    assert [line["left"] for line in service.logged("stopped")] == [len(left)]


async def test_what_was_left_over_is_built_by_the_next_service(
    namespace_apart: Namespace, services: Services, slow_api: SlowApi, tmp_path: Path
) -> None:
    """It goes on with the journal: nobody has to send anything again, and every event ends with its one Job."""
    service = await with_a_full_queue(namespace_apart, services, slow_api, tmp_path, drainTimeout="100ms")
    service.signal(signal.SIGTERM)
    assert await service.exit_code(within=10) == 0
    assert len(service.logged("left_unfinished")) == EVENTS

    following = await services.start(namespace_apart, journal=tmp_path / "journal.sqlite3")
    stats = await following.all_done(EVENTS)

    # The first service's one request had reached the API server, though its answer never came.
    assert stats["outcomes"] == {"created": EVENTS - 1, "adopted": 1, "superseded": 0, "failed": 0}
    assert len(await namespace_apart.jobs()) == EVENTS


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_it_at_once(
    namespace_apart: Namespace, services: Services, slow_api: SlowApi, tmp_path: Path, number: signal.Signals
) -> None:
    """Who presses Ctrl-C twice does not want to wait; the exit code says which signal it was."""
    service = await with_a_full_queue(namespace_apart, services, slow_api, tmp_path)
    service.signal(signal.SIGTERM)
    await service.until_logged("draining")

    service.signal(number)
    code = await service.exit_code(within=5)

    assert code == 128 + number
    assert [line["why"] for line in service.logged("stopped_at_once")] == ["second signal"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_with_nothing_to_do_it_stops_at_once(
    namespace: Namespace, services: Services, number: signal.Signals
) -> None:
    """A rollout of an idle service takes no time."""
    service = await services.start(namespace)

    service.signal(number)

    assert await service.exit_code(within=5) == 0
    assert "Traceback" not in service.text()


GOOD = {"kaniko": {"registry": REGISTRY}, "logging": {"format": "json"}}
"""Settings that would start."""


async def start_error(folder: Path, config: Any, *flags: str, **environ: str) -> tuple[int, str]:
    """The exit code of a service that does not start, and its words beside the log, which must be no traceback."""
    file = folder / "config.yaml"
    file.write_text(config if isinstance(config, str) else json.dumps(config))
    variables = {"BUILDER_JOURNAL__PATH": str(folder / "journal.sqlite3")} | environ
    started = await run("-m", "builder", "serve", f"--config={file}", "--port=0", *flags, environ=variables)
    assert "Traceback" not in started.stderr
    assert started.stdout == ""
    words = [line for line in started.stderr.splitlines(keepends=True) if not line.startswith("{")]
    return started.returncode, "".join(words).replace(str(folder), "…")


@pytest.mark.parametrize(
    ("config", "flags", "words"),
    [
        pytest.param({}, (), ["kaniko.registry is not set", "BUILDER_KANIKO__REGISTRY"], id="no registry"),
        pytest.param(GOOD, ["--namespace=No_Name"], ["kubernetes.namespace: ", "'No_Name'"], id="namespace"),
        pytest.param(GOOD, ["--namespace=a.b"], ["kubernetes.namespace: ", "'a.b'"], id="namespace with a dot"),
        pytest.param(GOOD, ["--port=70000"], ["server.port: ", "65535", "70000"], id="port"),
        pytest.param(GOOD, ["--config=nowhere.yaml"], ["--config: cannot read nowhere.yaml"], id="no such file"),
        pytest.param(GOOD, ["--config=."], ["--config: cannot read .: "], id="folder"),
        pytest.param("a: b: c", (), ["--config: …/config.yaml is no YAML"], id="no YAML"),
        pytest.param("- a", (), ["--config: …/config.yaml must hold keys and values, not a list"], id="list"),
        pytest.param(
            GOOD | {"asyncJobCreater": {}},
            (),
            ["asyncJobCreater: no such setting; did you mean asyncJobCreator"],
            id="key",
        ),
    ],
)
async def test_a_wrong_setting_stops_the_start(tmp_path: Path, config: Any, flags: list[str], words: list[str]) -> None:
    """Exit code 2, and the setting's name with what is wrong, before anything is contacted."""
    code, message = await start_error(tmp_path, config, *flags)

    assert code == 2
    assert message.startswith("settings:\n  ")
    assert [word for word in words if word not in message] == []


async def test_a_wrong_variable_stops_the_start(tmp_path: Path) -> None:
    """A misspelt variable is a setting that silently does nothing."""
    code, message = await start_error(tmp_path, GOOD, BUILDER_ASYNC_JOB_CREATOR__WORKERCOUNT="5")

    assert code == 2
    assert message == (
        "settings:\n  BUILDER_ASYNC_JOB_CREATOR__WORKERCOUNT: no such setting; "
        "did you mean BUILDER_ASYNC_JOB_CREATOR__WORKER_COUNT?\n"
    )


@pytest.mark.parametrize(
    ("kubeconfig", "words"),
    [
        pytest.param(None, "no Kubernetes credentials: this is no Pod", id="missing"),
        pytest.param("{broken", "the Kubernetes credentials in …/kubeconfig cannot be used: ", id="no YAML"),
        pytest.param("{}", "the Kubernetes credentials in …/kubeconfig cannot be used: ", id="empty"),
    ],
)
async def test_a_wrong_kubeconfig_stops_the_start(tmp_path: Path, kubeconfig: str | None, words: str) -> None:
    """Exit code 1: the settings are fine, their surroundings are not."""
    file = tmp_path / "kubeconfig"
    if kubeconfig is not None:
        file.write_text(kubeconfig)

    code, message = await start_error(tmp_path, GOOD, KUBECONFIG=str(file))

    assert code == 1
    assert message.startswith(f"knative-lambda-builder serve: {words}")


async def test_an_unknown_token_stops_the_start(namespace: Namespace, tmp_path: Path) -> None:
    """An API server that answers and will not have us is a mistake in the set-up, not an outage."""
    kubeconfig = namespace.kubeconfig(tmp_path / "kubeconfig", token="not-a-token")

    code, message = await start_error(tmp_path, GOOD, KUBECONFIG=str(kubeconfig))

    assert code == 1
    assert message == (
        "knative-lambda-builder serve: the Kubernetes API server refuses us: Unauthorized "
        "(check the service account, or KUBECONFIG)\n"
    )


async def test_a_taken_port_stops_the_start(namespace: Namespace, tmp_path: Path) -> None:
    """The message names the address and the settings that change it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        flags = "--host=127.0.0.1", f"--port={port}"
        code, message = await start_error(tmp_path, GOOD, *flags, **namespace.environ)

    assert code == 1
    assert message.startswith(f"knative-lambda-builder serve: cannot listen on 127.0.0.1:{port}: ")
    assert re.search(r"address already in use", message, re.IGNORECASE)
    assert "server.port" in message


async def test_a_start_while_the_api_server_is_away_waits_for_it(
    namespace: Namespace, services: Services, tmp_path: Path
) -> None:
    """It takes events and is not ready; SIGTERM still ends it within its grace period, and names what is left."""
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        server = f"https://127.0.0.1:{nobody.getsockname()[1]}"
    kubeconfig = namespace.kubeconfig(tmp_path / "away", server=server)
    service = await services.start(namespace, kubeconfig=kubeconfig, asyncJobCreator={"drainTimeout": "200ms"})

    statuses = await service.statuses(build_of("parser1"))
    ready = await service.http.get("/health/ready")
    service.signal(signal.SIGTERM)

    assert (statuses, ready.status_code) == ([202], 503)
    assert "Connection refused" in ready.json()["detail"]
    assert await service.exit_code(within=10) == 0
    assert [line["event_id"] for line in service.logged("left_unfinished")] == ["parser1"]


async def test_a_start_while_the_api_server_starts(namespace: Namespace, services: Services, tmp_path: Path) -> None:
    """A node that comes up starts both: ``/readyz`` says 500 for a moment, which is no reason to give up."""
    not_yet = Reply(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 17\r\n\r\n[-]etcd not ready", then="close")
    ready = Reply(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", then="close")
    async with ScriptedServer(not_yet, not_yet, ready).running() as api:
        kubeconfig = namespace.kubeconfig(tmp_path / "starting", server=f"http://127.0.0.1:{api.port}")
        service = await services.start(namespace, kubeconfig=kubeconfig)
        status = await eventually(service.readiness, lambda status: status == 200)

    assert status == 200
    assert [line["error"] for line in service.logged("api_server_unreachable")] == ["[-]etcd not ready"]
    assert len(service.logged("api_server_back")) == 1
