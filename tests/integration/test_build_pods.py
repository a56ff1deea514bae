"""The Pods of builds: real Pods behind the walls that are promised, whatever an event says."""

import json
import re
from collections.abc import Mapping
from typing import Any

import httpx
import pytest

from builder.models import Manifest
from tests.contract.harness import eventually
from tests.integration import hostile
from tests.integration.messages import Document, build_of, structured
from tests.integration.namespace import Namespace
from tests.integration.service import Service, Services

pytestmark = pytest.mark.integration

OURS = "build.notifi.network/"
GIT = {"name": "GIT_USERNAME", "valueFrom": {"secretKeyRef": {"name": "git", "key": "username"}}}
PASSWORD = {"name": "GIT_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "git", "key": "password"}}}
BEHIND_WALLS: dict[str, Any] = {
    "kaniko": {"registrySecret": "push", "gitSecret": "git", "cache": False},
    "intake": {"allowedSourceHosts": ["git.example.com"]},
    "asyncJobCreator": {"maxQueueSize": 5000, "workerCount": 8},
}
RESOURCES = {
    "requests": {"cpu": "500m", "memory": "512Mi", "ephemeral-storage": "1Gi"},
    "limits": {"cpu": "2", "memory": "2Gi", "ephemeral-storage": "10Gi"},
}
REGISTRY_VOLUME = {
    "name": "registry",
    "secret": {
        "secretName": "push",
        "items": [{"key": ".dockerconfigjson", "path": "config.json"}],
        "defaultMode": 420,
    },
}
COMMON: dict[str, Any] = {
    "restartPolicy": "Never",
    "terminationGracePeriodSeconds": 30,
    "dnsPolicy": "ClusterFirst",
    "schedulerName": "default-scheduler",
    "automountServiceAccountToken": False,
    "enableServiceLinks": False,
}
CONTAINER = {
    "resources": RESOURCES,
    "terminationMessagePath": "/dev/termination-log",
    "terminationMessagePolicy": "FallbackToLogsOnError",
    "imagePullPolicy": "IfNotPresent",
}
KANIKO_POD = COMMON | {
    "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
    "volumes": [REGISTRY_VOLUME],
    "containers": [
        CONTAINER
        | {
            "name": "kaniko",
            "image": "ghcr.io/osscontainertools/kaniko:v1.28.3",
            "env": [GIT, PASSWORD],
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "capabilities": {
                    "drop": ["ALL"],
                    "add": ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETFCAP", "SETGID", "SETUID"],
                },
                "runAsUser": 0,
            },
            "volumeMounts": [{"name": "registry", "mountPath": "/kaniko/.docker", "readOnly": True}],
        }
    ],
}
BUILDKIT_HOME = "/home/user"
BUILDKIT_POD = COMMON | {
    "securityContext": {
        "runAsUser": 1000,
        "runAsGroup": 1000,
        "runAsNonRoot": True,
        "seccompProfile": {"type": "Unconfined"},
        "appArmorProfile": {"type": "Unconfined"},
    },
    "volumes": [{"name": "state", "emptyDir": {}}, REGISTRY_VOLUME],
    "containers": [
        CONTAINER
        | {
            "name": "buildkit",
            "image": "docker.io/moby/buildkit:v0.33.1-rootless",
            "command": [
                "sh",
                "-c",
                r"""set -eu
export GIT_AUTH_HEADER="basic $$(printf %s "$$GIT_USERNAME:$$GIT_PASSWORD" | base64 -w0)"
buildctl-daemonless.sh build --metadata-file /tmp/metadata.json "$$@" &
trap 'kill $$!; exit 143' TERM
wait $$!
digest=$$(sed -n 's/^ *"containerimage\.digest": *"\([^"]*\)".*/\1/p' /tmp/metadata.json)
printf %s "$$digest" > /dev/termination-log""",
                "build",
            ],
            "env": [{"name": "BUILDKITD_FLAGS", "value": "--oci-worker-no-process-sandbox"}, GIT, PASSWORD],
            "volumeMounts": [
                {"name": "state", "mountPath": f"{BUILDKIT_HOME}/.local/share/buildkit"},
                {"name": "registry", "mountPath": f"{BUILDKIT_HOME}/.docker", "readOnly": True},
            ],
        }
    ],
}


def kanikos(image: str, wanted: Mapping[str, Any]) -> list[str]:
    """Kaniko's arguments for an event's parameters, as they must be once the kubelet has expanded them."""
    ref = f"#refs/heads/{wanted['ref']}" if "ref" in wanted else ""
    return [
        f"--context=git://{wanted['source_url'].removeprefix('https://').removesuffix('/')}{ref}",
        *(f"--context-sub-path={path}" for path in optional(wanted, "sub_path")),
        *(f"--dockerfile={path}" for path in optional(wanted, "dockerfile")),
        f"--destination={image}",
        *(f"--build-arg={name}={value}" for name, value in wanted.get("environment", {}).items()),
        "--cache=false",
        "--push-retry=3",
        "--compressed-caching=false",
        "--log-format=text",
        "--digest-file=/dev/termination-log",
    ]


def buildkits(image: str, wanted: Mapping[str, Any]) -> list[str]:
    """BuildKit's."""
    ref = f"#refs/heads/{wanted['ref']}" if "ref" in wanted else ""
    options = [
        f"context={wanted['source_url'].removesuffix('/').removesuffix('.git')}.git{ref}",
        *(f"contextsubdir={path}" for path in optional(wanted, "sub_path")),
        *(f"filename={path}/Dockerfile" for path in optional(wanted, "sub_path")),
        *(f"filename={path}" for path in optional(wanted, "dockerfile")),
        *(f"build-arg:{name}={value}" for name, value in wanted.get("environment", {}).items()),
    ]
    return [
        *("--progress", "plain", "--frontend", "dockerfile.v0"),
        *(word for option in options for word in ("--opt", option)),
        *("--secret", "id=GIT_AUTH_HEADER.git.example.com,env=GIT_AUTH_HEADER"),
        *("--output", f"type=image,name={image},push=true"),
    ]


def optional(wanted: Mapping[str, Any], name: str) -> list[Any]:
    """The parameter if it is there."""
    return [wanted[name]] if name in wanted else []


def expanded(argument: str) -> str:
    """What the kubelet makes of an argument, with the Secret in the container's environment."""
    secrets = {"GIT_USERNAME": "<secret>", "GIT_PASSWORD": "<secret>"}
    return re.sub(
        r"\$(?:(\$)|\(([^)]*)\))", lambda found: "$" if found[1] else secrets.get(found[2], found[0]), argument
    )


async def labelled(namespace: Namespace, level: str) -> None:
    """Have Pod Security enforced."""
    await namespace.kubectl("label", "namespace", namespace.name, f"pod-security.kubernetes.io/enforce={level}")


async def all_have_pods(namespace: Namespace) -> None:
    """Wait until the Job controller has made a Pod for each Job."""

    async def without() -> set[str]:
        jobs = {job["metadata"]["uid"] for job in await namespace.read("jobs")}
        return jobs - {pod["metadata"]["ownerReferences"][0]["uid"] for pod in await namespace.read("pods")}

    await eventually(without, lambda left: not left, within=60)


@pytest.mark.parametrize("engine", ["kaniko", "buildkit"])
@pytest.mark.timeout(240)
async def test_a_hostile_event_gets_a_400_or_the_same_job_as_anybody(
    namespace: Namespace, services: Services, engine: str
) -> None:
    """Each attempt in each field, through the door to the Job as the API server keeps it.

    Whatever is let in changes build arguments, names and annotations, and nothing else of the Job.
    """
    await labelled(namespace, "baseline" if engine == "kaniko" else "privileged")
    service = await services.start(namespace, **BEHIND_WALLS, build={"engine": engine})
    accepted: list[Document] = []
    for number, attempt in enumerate(hostile.attempts()):
        document = attempt.event(number)
        answer = await post(service, document)
        if answer.status_code == httpx.codes.ACCEPTED:
            accepted.append(document)
        else:
            assert answer.status_code == httpx.codes.BAD_REQUEST, document
            assert all(error["field"].startswith(".".join(attempt.place)) for error in answer.json()["errors"]), answer
    stats = await service.all_done(len(accepted), within=120)

    assert stats["failures"] == {}
    jobs = {job["metadata"]["annotations"][f"{OURS}event-id"]: job for job in await namespace.read("jobs")}
    assert len(jobs) == stats["outcomes"]["created"] == len(accepted)
    for document in accepted:
        expect_the_usual(jobs[document["id"]], document, engine)
    assert len(hostile.attempts()) > 800
    assert len(accepted) > 200
    if engine == "kaniko":
        await all_have_pods(namespace)
    assert await namespace.events("FailedCreate") == []


async def post(service: Service, document: Document) -> httpx.Response:
    """Send in structured mode: what a header cannot hold is sent too."""
    headers, body = structured(document)
    return await service.http.post("/", headers=headers, content=body)


def expect_the_usual(job: Manifest, document: Document, engine: str) -> None:
    """The Job is the one that an innocent event gets, but for names and build arguments."""
    data = document["data"]
    template, annotations = job["spec"]["template"], job["metadata"]["annotations"]
    image = annotations[f"{OURS}image"]
    assert re.fullmatch(r"registry\.example\.com/knative-lambdas:acme-p\d+--[a-z2-7]{20}", image)
    assert template["metadata"]["annotations"] == {"kubectl.kubernetes.io/default-container": engine}
    assert annotations[f"{OURS}event-source"] == document["source"]
    assert job["metadata"]["labels"] == {
        "app.kubernetes.io/name": "kaniko-job",
        "app.kubernetes.io/managed-by": "knative-lambda-builder",
        "app.kubernetes.io/component": "build",
        f"{OURS}third-party-id": data["third_party_id"],
        f"{OURS}parser-id": data["parser_id"],
    }
    pod, arguments = (KANIKO_POD, kanikos) if engine == "kaniko" else (BUILDKIT_POD, buildkits)
    stored = json.loads(json.dumps(template["spec"]))
    given = [expanded(argument) for argument in stored["containers"][0].pop("args")]
    assert stored == pod
    assert given == arguments(image, data["parameters"])
    spec = {name: value for name, value in job["spec"].items() if name not in {"template", "selector"}}
    assert spec == {
        "parallelism": 1,
        "completions": 1,
        "completionMode": "NonIndexed",
        "manualSelector": False,
        "suspend": False,
        "activeDeadlineSeconds": 1800,
        "backoffLimit": 0,
        "podFailurePolicy": {
            "rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
        },
        "podReplacementPolicy": "Failed",
        "ttlSecondsAfterFinished": 3600,
    }


FUNCTION = {"runtime": "python3.12"}
WALLS: dict[str, dict[str, Any]] = {
    "usual": {},
    "everything": {
        **BEHIND_WALLS,
        "build": {"caConfigMap": "trust", "registryMirrors": {"docker.io": ["mirror.example.com"]}},
        "buildPod": {
            "hostUsers": False,
            "nodeSelector": {"pool": "builds"},
            "tolerations": [{"key": "builds", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}],
        },
    },
}


@pytest.mark.parametrize("walls", WALLS)
async def test_pod_security_baseline_admits_kaniko(namespace: Namespace, services: Services, walls: str) -> None:
    """The Job controller makes the Pods for real, where the level is enforced."""
    await labelled(namespace, "baseline")
    service = await services.start(namespace, **WALLS[walls])
    assert await service.statuses(build_of("container"), build_of("function", **FUNCTION)) == [202, 202]
    await service.all_done(2)
    await all_have_pods(namespace)
    assert len(await namespace.read("pods")) == 2
    assert await namespace.events("FailedCreate") == []


async def test_pod_security_baseline_refuses_buildkit(namespace: Namespace, services: Services) -> None:
    """As the README and ``check`` say: seccomp and AppArmor, and nothing else, are too much."""
    await labelled(namespace, "baseline")
    service = await services.start(namespace, build={"engine": "buildkit"})
    assert await service.statuses(build_of("p")) == [202]
    assert (await service.ended("p"))["status"] == "created"
    message, *_ = await eventually(lambda: namespace.events("FailedCreate"), bool)
    _, _, why = message.partition('violates PodSecurity "baseline:latest": ')
    assert re.sub(r" \([^)]*\)", "", why) == "forbidden AppArmor profile, seccompProfile"
    assert await namespace.read("pods") == []


async def test_urgency_and_a_sandbox(namespace: Namespace, services: Services) -> None:
    """An event's priority becomes its Pod's, by classes that the settings name; the runtime is the settings' too."""
    name = namespace.name
    await namespace.create(
        {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": 7},
        {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": name}, "handler": "runsc"},
    )
    pod = {"runtimeClassName": name, "priorityClasses": {"1": name}}
    service = await services.start(namespace, buildPod=pod)
    urgent, usual = build_of("urgent", priority=1), build_of("usual", priority=5)
    assert await service.statuses(urgent, usual) == [202, 202]
    await service.all_done(2)
    await all_have_pods(namespace)
    label = f"{OURS}parser-id"
    pods = {one["metadata"]["labels"][label]: one["spec"] for one in await namespace.read("pods")}
    assert {parser: one["priority"] for parser, one in pods.items()} == {"urgent": 7, "usual": 0}
    assert {one["runtimeClassName"] for one in pods.values()} == {name}


async def test_a_queue_lets_the_build_start(namespace: Namespace, services: Services) -> None:
    """Kueue's part is played by hand: until somebody resumes the Job there is no Pod, and a later event waits for it."""
    service = await services.start(namespace, kueue={"queueName": "builds"}, asyncJobCreator={"maxRetryDelay": "100ms"})
    assert await service.statuses(build_of("p", "e-1")) == [202]
    assert (await service.ended("e-1"))["status"] == "created"
    ((name, job),) = (await namespace.jobs()).items()
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "builds"
    await eventually(namespace.jobs, lambda jobs: jobs[name]["status"].get("conditions"))
    assert await namespace.read("pods") == []

    assert await service.statuses(build_of("p", "e-2")) == [202]
    waiting = await eventually(lambda: service.result("e-2"), lambda result: result["status"] == "waiting")
    assert waiting["message"] == f"Job {name} is suspended"
    await namespace.kubectl("patch", "job", name, '--patch={"spec":{"suspend":false}}')
    await all_have_pods(namespace)
    message = f"Job {name} is still building"
    await eventually(lambda: service.result("e-2"), lambda result: result.get("message") == message)
    await namespace.kubectl("delete", "job", name)
    assert (await service.ended("e-2"))["status"] == "created"
    assert (await namespace.jobs())[name]["spec"]["suspend"] is True
