"""A request becomes exactly this Job."""

import json
from typing import Any

from builder.events.parsing import STRUCTURED_TYPE, parse_http
from builder.events.request import build_request
from builder.jobs.manifest import build_job
from builder.models import BuildType, Event, Source, SourceKind
from tests import building

LABELS = {
    "app.kubernetes.io/name": "kaniko-job",
    "app.kubernetes.io/managed-by": "knative-lambda-builder",
    "app.kubernetes.io/component": "build",
    "build.notifi.network/third-party-id": "acme",
    "build.notifi.network/parser-id": "parser1",
}
IMAGE = "registry.example.com/knative-lambdas:acme-parser1--whfe7k3pudgxyvmvmiyh"
HOSTS = {"allowedSourceHosts": ["git.example.com"]}
JOB: dict[str, Any] = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {
        "name": "kaniko-job-acme-parser1",
        "labels": LABELS,
        "annotations": {
            "build.notifi.network/third-party-id": "acme",
            "build.notifi.network/parser-id": "parser1",
            "build.notifi.network/correlation-id": "c-1",
            "build.notifi.network/event-id": "e-1",
            "build.notifi.network/event-source": "network.notifi.kaniko-jobs",
            "build.notifi.network/fingerprint": "v1:c147eefd30cc7a68b5674872cad26ca23701128b",
            "build.notifi.network/requested-at": "2024-01-01T12:00:00+00:00",
            "build.notifi.network/priority": "5",
            "build.notifi.network/image": IMAGE,
        },
    },
    "spec": {
        "activeDeadlineSeconds": 1800,
        "backoffLimit": 0,
        "podFailurePolicy": {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]},
        "podReplacementPolicy": "Failed",
        "ttlSecondsAfterFinished": 3600,
        "template": {
            "metadata": {
                "labels": LABELS,
                "annotations": {"kubectl.kubernetes.io/default-container": "kaniko"},
            },
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
                "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [
                    {
                        "name": "kaniko",
                        "image": "ghcr.io/osscontainertools/kaniko:v1.28.3",
                        "args": [
                            "--context=git://git.example.com/acme/parser1.git",
                            f"--destination={IMAGE}",
                            "--cache=true",
                            "--push-retry=3",
                            "--compressed-caching=false",
                            "--log-format=text",
                            "--digest-file=/dev/termination-log",
                        ],
                        "resources": {
                            "requests": {"cpu": "500m", "memory": "512Mi", "ephemeral-storage": "1Gi"},
                            "limits": {"cpu": "2", "memory": "2Gi", "ephemeral-storage": "10Gi"},
                        },
                        "securityContext": {
                            "allowPrivilegeEscalation": False,
                            "capabilities": {
                                "drop": ["ALL"],
                                "add": [
                                    "CHOWN",
                                    "DAC_OVERRIDE",
                                    "FOWNER",
                                    "FSETID",
                                    "KILL",
                                    "SETFCAP",
                                    "SETGID",
                                    "SETUID",
                                ],
                            },
                            "runAsUser": 0,
                        },
                        "terminationMessagePolicy": "FallbackToLogsOnError",
                    }
                ],
            },
        },
    },
}


def container(job: dict[str, Any]) -> dict[str, Any]:
    """The one container of a Job."""
    (only,) = job["spec"]["template"]["spec"]["containers"]
    assert isinstance(only, dict)
    return only


def test_the_smallest_request() -> None:
    """The whole Job, where an event says only what it must."""
    assert build_job(building.request(), building.settings()) == JOB


def test_the_example_of_004() -> None:
    """Every parameter of 004's example reaches the Job."""
    (event,) = parse_http(STRUCTURED_TYPE, (), building_json()).items
    assert isinstance(event, Event)
    settings = building.settings()
    request = build_request(event, building.NOON, settings.build, settings.intake)
    job = build_job(request, settings)
    image = job["metadata"]["annotations"]["build.notifi.network/image"]
    assert job["metadata"]["annotations"]["build.notifi.network/priority"] == "1"
    assert job["metadata"]["annotations"]["build.notifi.network/correlation-id"] == "c-1"
    assert job["metadata"]["annotations"]["build.notifi.network/requested-at"] == "2024-01-01T00:00:00+00:00"
    assert job["spec"]["activeDeadlineSeconds"] == 1800
    assert container(job)["args"] == [
        "--context=git://github.com/notifi/parsers.git",
        f"--context-sub-path={building.PARSER}",
        f"--destination={image}",
        "--build-arg=NODE_ENV=production",
        "--build-arg=BUILD_MODE=optimized",
        "--build-arg=RUNTIME=nodejs18",
        "--cache=true",
        "--push-retry=3",
        "--compressed-caching=false",
        "--log-format=text",
        "--digest-file=/dev/termination-log",
    ]


def building_json() -> bytes:
    """004's example as a sender writes it."""
    return json.dumps(building.EXAMPLE).encode()


def test_a_function_is_built_by_the_runtimes_dockerfile() -> None:
    """``function`` mounts the runtimes' Dockerfiles and starts from the runtime's image."""
    job = build_job(building.request(build_type=BuildType.FUNCTION, runtime="python3.12"), building.settings())
    pod = job["spec"]["template"]["spec"]
    assert pod["volumes"] == [{"name": "runtimes", "configMap": {"name": "knative-lambda-runtimes"}}]
    assert container(job)["volumeMounts"] == [{"name": "runtimes", "mountPath": "/kaniko/runtimes", "readOnly": True}]
    assert container(job)["args"][1:5] == [
        "--dockerfile=/kaniko/runtimes/python.Dockerfile",
        f"--destination={job['metadata']['annotations']['build.notifi.network/image']}",
        "--build-arg=RUNTIME=python3.12",
        "--build-arg=BASE_IMAGE=docker.io/library/python:3.12-slim",
    ]


def test_a_sources_own_dockerfile() -> None:
    """``container`` takes the Dockerfile that the event names."""
    job = build_job(building.request(dockerfile="docker/Dockerfile.prod"), building.settings())
    assert "--dockerfile=docker/Dockerfile.prod" in container(job)["args"]


def test_credentials_come_from_secrets_that_settings_name() -> None:
    """The registry's and Git's secrets are mounted where Kaniko reads them, and nowhere else."""
    kaniko = {"registry": "r.example.com", "registrySecret": "push", "gitSecret": "pull", "serviceAccount": "builds"}
    job = build_job(building.request(), building.settings(kaniko=kaniko, intake=HOSTS))
    pod = job["spec"]["template"]["spec"]
    items = [{"key": ".dockerconfigjson", "path": "config.json"}]
    assert pod["serviceAccountName"] == "builds"
    assert pod["volumes"] == [{"name": "registry", "secret": {"secretName": "push", "items": items}}]
    assert container(job)["volumeMounts"] == [{"name": "registry", "mountPath": "/kaniko/.docker", "readOnly": True}]
    assert container(job)["env"] == [
        {"name": "GIT_USERNAME", "valueFrom": {"secretKeyRef": {"name": "pull", "key": "username"}}},
        {"name": "GIT_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "pull", "key": "password"}}},
    ]


def test_git_credentials_are_not_given_to_other_sources() -> None:
    """A build from an archive has no use for them, and a RUN could read them."""
    source = Source(SourceKind.ARCHIVE, "https://example.com/a.tar.gz")
    settings = building.settings(kaniko={"registry": "r.example.com", "gitSecret": "pull"}, intake=HOSTS)
    assert "env" not in container(build_job(building.request(source=source), settings))


def test_a_dollar_never_reaches_the_kubelet() -> None:
    """The kubelet expands ``$(GIT_PASSWORD)`` in arguments; ``$$`` is a plain dollar to it."""
    job = build_job(building.request(environment={"A": "$(GIT_PASSWORD) $$ $"}), building.settings())
    assert "--build-arg=A=$$(GIT_PASSWORD) $$$$ $$" in container(job)["args"]


def test_a_trace_goes_on_in_the_job() -> None:
    """``traceparent`` becomes an annotation."""
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    job = build_job(building.request(traceparent=trace), building.settings())
    assert job["metadata"]["annotations"]["build.notifi.network/traceparent"] == trace


def test_where_builds_run_is_the_settings_choice() -> None:
    """Nodes, walls and urgency come from settings alone."""
    pod = {
        "hostUsers": False,
        "runtimeClassName": "gvisor",
        "nodeSelector": {"pool": "builds"},
        "tolerations": [{"key": "builds", "operator": "Equal", "value": "only", "tolerationSeconds": 5}],
        "priorityClasses": {"1": "builds-urgent", "5": "builds"},
    }
    settings = building.settings(buildPod=pod)
    urgent, usual, idle = (
        build_job(building.request(priority=priority), settings)["spec"]["template"]["spec"] for priority in (1, 5, 10)
    )
    plain = JOB["spec"]["template"]["spec"]
    assert idle == plain | {
        "hostUsers": False,
        "runtimeClassName": "gvisor",
        "nodeSelector": {"pool": "builds"},
        "tolerations": [{"key": "builds", "operator": "Equal", "value": "only", "tolerationSeconds": 5}],
    }
    assert urgent == idle | {"priorityClassName": "builds-urgent"}
    assert usual == idle | {"priorityClassName": "builds"}


def test_a_queue_of_the_clusters() -> None:
    """Kueue knows a Job by its label and starts it: until then it is suspended."""
    job = build_job(building.request(), building.settings(kueue={"queueName": "builds"}))
    assert job["metadata"]["labels"] == LABELS | {"kueue.x-k8s.io/queue-name": "builds"}
    assert job["spec"] == JOB["spec"] | {"suspend": True}


def test_mirrors_and_authorities() -> None:
    """Base images come through the mirrors, and a company's own certificates are trusted beside the public ones."""
    build = {"registryMirrors": {"docker.io": ["a.example.com/hub", "b.example.com"]}, "caConfigMap": "trust"}
    job = build_job(building.request(), building.settings(build=build))
    args = container(job)["args"]
    assert args[3:5] == [
        "--registry-map=index.docker.io=a.example.com/hub",
        "--registry-map=index.docker.io=b.example.com",
    ]
    assert [args[:3], args[5:]] == [container(JOB)["args"][:3], container(JOB)["args"][3:]]
    assert container(job)["env"] == [{"name": "SSL_CERT_DIR", "value": "/kaniko/ssl/certs:/kaniko/authorities"}]
    assert container(job)["volumeMounts"] == [
        {"name": "authorities", "mountPath": "/kaniko/authorities", "readOnly": True}
    ]
    assert job["spec"]["template"]["spec"]["volumes"] == [{"name": "authorities", "configMap": {"name": "trust"}}]
