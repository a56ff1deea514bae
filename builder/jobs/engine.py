"""What a build engine is: a function from a plan to its part of the Pod. ``kaniko`` and ``buildkit`` are the two.

What they have in common is here; only ``manifest`` chooses between them, and nobody else knows that there are two.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from builder.models import Source
from builder.settings import Settings

Part: TypeAlias = dict[str, Any]
"""A piece of a Kubernetes object as plain JSON."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be built, in words that belong to no engine.

    ``dockerfile`` is relative to the source's sub-path; None means ``Dockerfile``. ``language``, where there is one,
    names the runtimes' Dockerfile that is built instead. ``cache_tag`` belongs to the target alone.
    """

    source: Source
    dockerfile: str | None
    language: str | None
    arguments: Mapping[str, str]
    image: str
    cache_tag: str


class Volume(NamedTuple):
    """A volume and where it is mounted: whole, or of it the one file ``sub_path``."""

    name: str
    source: Part
    path: str
    sub_path: str | None = None
    writable: bool = False


@dataclass(frozen=True, slots=True)
class PodPart:
    """What an engine needs of its Pod.

    Its container must end with 0 if, and only if, the image was pushed, and must have put the image's digest,
    ``sha256:…``, into its termination message by then. Nothing is escaped for the kubelet here. ``security`` is the
    Pod's security context.
    """

    container: Part
    security: Part
    volumes: list[Volume]


Engine: TypeAlias = Callable[[Plan, Settings], PodPart]


def cache_repository(settings: Settings) -> str:
    """Where layers are cached: as the settings say, else beside the images."""
    kaniko = settings.kaniko
    if kaniko.cache_repository is not None:
        return kaniko.cache_repository
    return f"{image_repository(settings)}/cache"


def image_repository(settings: Settings) -> str:
    """``registry/repository`` of the images. The registry may be unset on the embedded cluster, which pushes none."""
    kaniko = settings.kaniko
    registry = "registry.invalid" if kaniko.registry is None else kaniko.registry
    return f"{registry}/{kaniko.repository}"


def git_credentials(settings: Settings) -> list[Part]:
    """The variables ``GIT_USERNAME`` and ``GIT_PASSWORD``, out of the Secret that the settings name."""
    if settings.kaniko.git_secret is None:
        return []
    variables = {"GIT_USERNAME": "username", "GIT_PASSWORD": "password"}
    return [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": settings.kaniko.git_secret, "key": key}}}
        for name, key in variables.items()
    ]


def volumes(
    plan: Plan, settings: Settings, *, registry: str, runtimes: str, authorities: str, bundle: str | None = None
) -> list[Volume]:
    """What the settings ask for, at the places where the engine looks for it.

    ``registry``, ``runtimes`` and ``authorities`` are folders. With ``bundle``, ``authorities`` is a file instead, the
    one of that name in the ConfigMap.
    """
    wanted = []
    if settings.kaniko.registry_secret is not None:
        items = [{"key": ".dockerconfigjson", "path": "config.json"}]
        secret = {"secretName": settings.kaniko.registry_secret, "items": items}
        wanted.append(Volume("registry", {"secret": secret}, registry))
    if plan.language is not None:
        wanted.append(Volume("runtimes", {"configMap": {"name": settings.build.runtimes_config_map}}, runtimes))
    if settings.build.ca_config_map is not None:
        config_map = {"configMap": {"name": settings.build.ca_config_map}}
        wanted.append(Volume("authorities", config_map, authorities, bundle))
    return wanted
