"""The Job of a request: one pure function, in small parts, to a plain dict. The engine adds its part of the Pod."""

from collections.abc import Mapping
from typing import Any, Final, Literal

from builder.build_settings import Kaniko, Limits, Requests
from builder.jobs import labels
from builder.jobs.buildkit import buildkit
from builder.jobs.engine import Engine, Plan, PodPart, Volume, image_repository
from builder.jobs.fingerprint import fingerprint
from builder.jobs.kaniko import kaniko
from builder.jobs.naming import cache_tag, image_tag, job_name, label_value
from builder.models import BuildRequest, BuildType, Manifest
from builder.settings import Settings

_ENGINES: Final[Mapping[Literal["kaniko", "buildkit"], Engine]] = {"kaniko": kaniko, "buildkit": buildkit}


def build_job(request: BuildRequest, settings: Settings) -> Manifest:
    """The Job that builds ``request``, without a namespace: the cluster's adapter knows that.

    ``settings.kaniko.registry`` may be unset on the embedded cluster only, where nothing is pushed.
    """
    plan = _plan(request, settings)
    part = _ENGINES[settings.build.engine](plan, settings)
    metadata_labels = _labels(request)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(request.target, request.job_name),
            "labels": metadata_labels | _queue(settings),
            "annotations": _annotations(request, plan.image),
        },
        "spec": {
            **({"suspend": True} if _queue(settings) else {}),
            "activeDeadlineSeconds": request.build_timeout,
            "backoffLimit": settings.kaniko.backoff_limit,
            # A node that is drained, or needs its room, costs the build its Pod and no try. Another Pod begins when the
            # first has ended, and not, as is the default, as soon as it is asked to: one builder at a time.
            "podFailurePolicy": {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]},
            "podReplacementPolicy": "Failed",
            "ttlSecondsAfterFinished": round(settings.kaniko.ttl_after_finished),
            "template": {
                # A side-car that some webhook adds must not be what `kubectl logs` shows.
                "metadata": {
                    "labels": dict(metadata_labels),
                    "annotations": {labels.CONTAINER: part.container["name"]},
                },
                "spec": _pod(request, settings, part),
            },
        },
    }


def _plan(request: BuildRequest, settings: Settings) -> Plan:
    language = None
    if request.build_type is BuildType.FUNCTION and request.runtime is not None:
        language = settings.build.runtimes[request.runtime].language
    return Plan(
        source=request.source,
        dockerfile=request.dockerfile,
        language=language,
        arguments=_build_arguments(request, settings),
        image=f"{image_repository(settings)}:{image_tag(request)}",
        cache_tag=cache_tag(request.target),
    )


def _queue(settings: Settings) -> dict[str, str]:
    """The label by which Kueue knows its Jobs. It starts them: until then they must be suspended."""
    name = settings.kueue.queue_name
    return {} if name is None else {labels.QUEUE: name}


def _labels(request: BuildRequest) -> dict[str, str]:
    return {
        labels.NAME: "kaniko-job",
        labels.MANAGED_BY: labels.OURSELVES,
        labels.COMPONENT: "build",
        labels.THIRD_PARTY_ID: label_value(request.target.third_party_id),
        labels.PARSER_ID: label_value(request.target.parser_id),
    }


def _annotations(request: BuildRequest, image: str) -> dict[str, str]:
    annotations = {
        labels.THIRD_PARTY_ID: request.target.third_party_id,
        labels.PARSER_ID: request.target.parser_id,
        labels.CORRELATION_ID: request.correlation_id,
        labels.EVENT_ID: request.event_id,
        labels.EVENT_SOURCE: request.event_source,
        labels.FINGERPRINT: fingerprint(request),
        labels.REQUESTED_AT: request.requested_at.isoformat(),
        labels.PRIORITY: str(request.priority),
        labels.IMAGE: image,
    }
    if request.traceparent is not None:
        annotations[labels.TRACEPARENT] = request.traceparent
    return annotations


def _pod(request: BuildRequest, settings: Settings, part: PodPart) -> dict[str, Any]:
    kaniko, wanted = settings.kaniko, settings.build_pod
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": part.security,
        "containers": [_container(part, kaniko)],
    }
    if part.volumes:
        pod["volumes"] = [{"name": volume.name, **volume.source} for volume in part.volumes]
    if not wanted.host_users:
        pod["hostUsers"] = False
    if wanted.tolerations:
        pod["tolerations"] = [one.model_dump(by_alias=True, exclude_none=True) for one in wanted.tolerations]
    optional = {
        "serviceAccountName": kaniko.service_account,
        "runtimeClassName": wanted.runtime_class_name,
        "nodeSelector": dict(wanted.node_selector) or None,
        "priorityClassName": wanted.priority_classes.get(request.priority),
    }
    return pod | {name: value for name, value in optional.items() if value is not None}


def _container(part: PodPart, kaniko: Kaniko) -> dict[str, Any]:
    container = part.container | {
        "args": _literal(part.container["args"]),
        "resources": {"requests": _quantities(kaniko.requests), "limits": _quantities(kaniko.limits)},
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if "command" in container:
        container["command"] = _literal(container["command"])
    if part.volumes:
        container["volumeMounts"] = [_mount(volume) for volume in part.volumes]
    return container


def _literal(words: list[str]) -> list[str]:
    """For the kubelet, which expands $(NAME) from the container's environment, secrets included; $$ is a plain $."""
    return [word.replace("$", "$$") for word in words]


def _mount(volume: Volume) -> dict[str, Any]:
    mount: dict[str, Any] = {"name": volume.name, "mountPath": volume.path}
    if volume.sub_path is not None:
        mount["subPath"] = volume.sub_path
    return mount if volume.writable else mount | {"readOnly": True}


def _build_arguments(request: BuildRequest, settings: Settings) -> dict[str, str]:
    arguments = dict(request.environment)
    if request.runtime is not None:
        arguments["RUNTIME"] = request.runtime
        if request.build_type is BuildType.FUNCTION:
            arguments["BASE_IMAGE"] = settings.build.runtimes[request.runtime].base_image
    return arguments


def _quantities(resources: Requests | Limits) -> dict[str, str]:
    return {
        "cpu": resources.cpu,
        "memory": resources.memory,
        "ephemeral-storage": resources.ephemeral_storage,
    }
