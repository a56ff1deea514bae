"""From a sender's POST to the Pod that builds: 004's example, on a real API server."""

import json
import re
import signal
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from builder.events.request import build_request
from builder.jobs.manifest import build_job
from builder.models import Manifest
from builder.settings_sources import validate
from tests import building
from tests.contract.harness import eventually
from tests.integration.messages import Message, batch, binary, build_of, example, structured
from tests.integration.namespace import Namespace
from tests.integration.service import Services, run, settings_tree

pytestmark = pytest.mark.integration

EXAMPLE_JOB = "kaniko-job-0307ea43639b46-0197ad6c10b973--25ab7o34lx7bqe2j7aon"
OURS = "build.notifi.network/"

EVERYTHING: dict[str, Any] = {
    "kaniko": {
        "registry": "registry.example.com:5000/team",
        "registrySecret": "registry-credentials",
        "gitSecret": "git-credentials",
        "serviceAccount": "builds",
        "cacheRepository": "registry.example.com:5000/team/cache",
        "insecureRegistries": ["registry.example.com:5000"],
        "backoffLimit": 2,
        "ttlAfterFinished": "90.5s",
    },
    "intake": {"allowedSourceHosts": ["github.com", "git.example.com", "files.example.com", "sources"]},
}
"""Each setting that adds a field to the Job."""


def image_of(job: Manifest) -> str:
    """Where the build pushes to."""
    return str(job["metadata"]["annotations"][f"{OURS}image"])


@pytest.mark.parametrize("mode", [binary, structured])
async def test_the_example_becomes_its_job(
    namespace: Namespace, services: Services, mode: Callable[[Any], Message]
) -> None:
    """004's own event is answered at once, and everything that it asks for stands in a Job with a legal name."""
    service = await services.start(namespace)
    headers, body = mode(example())

    answer = await service.http.post("/", headers=headers, content=body)
    result = await service.ended("c-1")

    assert (answer.status_code, answer.json()) == (202, {"status": "queued"})
    assert [name for name in answer.headers if name.startswith("ce-")] == []
    assert list(await namespace.jobs()) == [EXAMPLE_JOB]
    job = (await namespace.jobs())[EXAMPLE_JOB]
    assert len(EXAMPLE_JOB) <= 63
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", EXAMPLE_JOB)
    prefix = f"registry.example.com/knative-lambdas:{building.THIRD_PARTY}-{building.PARSER}--"
    assert re.fullmatch(re.escape(prefix) + "[a-z2-7]{20}", image_of(job))
    annotations = dict(job["metadata"]["annotations"])
    assert re.fullmatch("v1:[0-9a-f]{40}", annotations.pop(f"{OURS}fingerprint"))
    assert annotations == {
        f"{OURS}third-party-id": building.THIRD_PARTY,
        f"{OURS}parser-id": building.PARSER,
        f"{OURS}correlation-id": "c-1",
        f"{OURS}event-id": "e-1",
        f"{OURS}event-source": "network.notifi.kaniko-jobs",
        f"{OURS}requested-at": "2024-01-01T00:00:00+00:00",
        f"{OURS}priority": "1",
        f"{OURS}image": image_of(job),
    }
    assert job["spec"]["activeDeadlineSeconds"] == 1800
    assert job["spec"]["template"]["spec"]["containers"][0]["args"] == [
        "--context=git://github.com/notifi/parsers.git",
        f"--context-sub-path={building.PARSER}",
        f"--destination={image_of(job)}",
        "--build-arg=NODE_ENV=production",
        "--build-arg=BUILD_MODE=optimized",
        "--build-arg=RUNTIME=nodejs18",
        "--cache=true",
        "--push-retry=3",
        "--compressed-caching=false",
        "--log-format=text",
        "--digest-file=/dev/termination-log",
    ]
    times = {name: result.pop(name) for name in ("accepted_at", "finished_at")}
    assert times["accepted_at"] <= times["finished_at"]
    assert result == {
        "correlation_id": "c-1",
        "status": "created",
        "reason": None,
        "message": None,
        "event": {"source": "network.notifi.kaniko-jobs", "id": "e-1"},
        "third_party_id": building.THIRD_PARTY,
        "parser_id": building.PARSER,
        "job_name": EXAMPLE_JOB,
        "image": image_of(job),
        "attempts": 1,
    }


async def test_a_batch_becomes_its_jobs(namespace: Namespace, services: Services) -> None:
    """Each event of a batch goes the whole way on its own."""
    service = await services.start(namespace)
    headers, body = batch(*(build_of(f"parser{number}") for number in range(3)))

    answer = await service.http.post("/events", headers=headers, content=body)
    await service.all_done(3)

    assert answer.status_code == 202
    assert [event["status"] for event in answer.json()["events"]] == ["queued"] * 3
    assert sorted(await namespace.jobs()) == [f"kaniko-job-acme-parser{number}" for number in range(3)]


async def test_one_event_ten_times_at_once(namespace: Namespace, services: Services) -> None:
    """Brokers deliver at least once: all ten deliveries get the same answer, and there is one Job."""
    service = await services.start(namespace)

    answers = await service.send(*[example()] * 10)
    stats = await service.all_done(1)

    assert [(answer.status_code, answer.json()) for answer in answers] == [(202, {"status": "queued"})] * 10
    assert list(await namespace.jobs()) == [EXAMPLE_JOB]
    assert stats["accepted"] == {"queue": 1, "direct": 0}
    assert stats["duplicates"] == {"queue": 9, "direct": 0}
    assert stats["outcomes"] == {"created": 1, "adopted": 0, "superseded": 0, "failed": 0}
    assert (await service.result("c-1"))["status"] == "created"


async def test_a_redelivery_after_a_restart_is_adopted(namespace: Namespace, services: Services) -> None:
    """What the process forgot stands in the Job: a broker that never saw our 202 does not make a second build."""
    for outcome in ("created", "adopted"):
        service = await services.start(namespace)
        assert await service.statuses(example()) == [202]
        assert (await service.ended("c-1"))["status"] == outcome
        service.signal(signal.SIGTERM)
        assert await service.exit_code() == 0

    assert list(await namespace.jobs()) == [EXAMPLE_JOB]


async def test_what_render_shows_is_what_is_made(namespace: Namespace, services: Services) -> None:
    """A dry run that the API server accepts to the last field gives the same Pod as the event itself."""
    environ = {"BUILDER_KANIKO__REGISTRY": "registry.example.com"}
    rendered = await run("-m", "builder", "render", "-o=json", environ=environ, stdin=json.dumps(example()))
    accepted = await namespace.create_strictly(json.loads(rendered.stdout))
    service = await services.start(namespace)

    await service.send(example())
    await service.ended("c-1")

    job = (await namespace.jobs())[accepted["metadata"]["name"]]
    assert job["metadata"]["annotations"] == accepted["metadata"]["annotations"]
    assert job["spec"]["template"]["spec"] == accepted["spec"]["template"]["spec"]


@pytest.mark.parametrize("sections", [pytest.param({}, id="defaults"), pytest.param(EVERYTHING, id="everything set")])
@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param({"runtime": "python3.11"}, id="function"),
        pytest.param({"build_type": "container", "dockerfile": "deploy/Dockerfile", "ref": "v2"}, id="Dockerfile"),
        pytest.param({"ref": "0123456789abcdef0123456789abcdef01234567", "sub_path": "a/b"}, id="commit"),
        pytest.param({"source_url": "https://files.example.com/source.tar.gz?version=3"}, id="archive"),
        pytest.param({"source_url": "s3://sources/acme.tar.gz", "runtime": "go1.25"}, id="bucket"),
        pytest.param({"environment": {"PRICE": "$(GIT_PASSWORD) $5", "LINES": "a\nb 'c' \"ü\""}}, id="odd values"),
    ],
)
async def test_every_kind_of_job_is_valid_to_the_last_field(
    namespace: Namespace, sections: dict[str, Any], parameters: dict[str, Any]
) -> None:
    """``fieldValidation=Strict`` refuses a field that Kubernetes does not know; without it a typing error is silent."""
    settings = validate(settings_tree(sections))
    request = build_request(building.event(**parameters), building.NOON, settings.build, settings.intake)
    job = build_job(request, settings)

    accepted = await namespace.create_strictly(job)

    assert accepted["metadata"]["annotations"] == job["metadata"]["annotations"]
    wanted, got = (one["spec"]["template"]["spec"]["containers"][0]["args"] for one in (job, accepted))
    assert got == wanted


@pytest.mark.parametrize("sections", [pytest.param({}, id="defaults"), pytest.param(EVERYTHING, id="everything set")])
async def test_the_pod_is_made_under_pod_security(
    namespace: Namespace, services: Services, sections: dict[str, Any]
) -> None:
    """The Job controller gets its Pods where ``baseline`` is enforced, and they carry our labels."""
    await namespace.kubectl("label", "namespace", namespace.name, "pod-security.kubernetes.io/enforce=baseline")
    await namespace.kubectl("create", "serviceaccount", "builds")
    service = await services.start(namespace, **sections)

    await service.send(example(), build_of("function", runtime="nodejs22"))
    await service.all_done(2)

    pods = await eventually(lambda: namespace.read("pods"), lambda pods: len(pods) == 2)
    jobs = await namespace.jobs()
    for pod in pods:
        labels = pod["metadata"]["labels"]
        job = jobs[labels["batch.kubernetes.io/job-name"]]
        assert labels == labels | job["metadata"]["labels"]
        assert labels[f"{OURS}third-party-id"] in {building.THIRD_PARTY, "acme"}
    made = await eventually(lambda: namespace.events("SuccessfulCreate"), lambda events: len(events) == 2)
    assert sorted(made) == sorted(f"Created pod: {pod['metadata']['name']}" for pod in pods)
    assert await namespace.events("FailedCreate") == []


async def test_pod_security_restricted_is_too_narrow_for_kaniko(namespace: Namespace, services: Services) -> None:
    """The test above would see a refused Pod: Kaniko unpacks images as root, which ``restricted`` forbids."""
    await namespace.kubectl("label", "namespace", namespace.name, "pod-security.kubernetes.io/enforce=restricted")
    service = await services.start(namespace)

    await service.send(example())

    refused = await eventually(lambda: namespace.events("FailedCreate"), bool)
    assert 'violates PodSecurity "restricted:latest": unrestricted capabilities' in refused[0]
    assert "runAsUser=0" in refused[0]


async def test_the_trace_goes_through_to_the_job(namespace: Namespace, services: Services) -> None:
    """Whoever follows a trace finds the build that it caused."""
    service = await services.start(namespace)
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers, body = binary(example())

    answer = await service.http.post("/", headers=headers | {"traceparent": trace}, content=body)
    await service.ended("c-1")

    assert answer.status_code == httpx.codes.ACCEPTED
    assert (await namespace.jobs())[EXAMPLE_JOB]["metadata"]["annotations"][f"{OURS}traceparent"] == trace
