"""Kaniko: root in its container, without privilege escalation, with eight capabilities.

What its flags really do stands in https://github.com/osscontainertools/kaniko#additional-flags.
"""

from builder.jobs.engine import Plan, PodPart, cache_repository, git_credentials, volumes
from builder.models import Source, SourceKind
from builder.settings import Settings

_HOME = "/kaniko"
"""Never enters the image, and no build's COPY writes to it."""
_RUNTIMES = f"{_HOME}/runtimes"
_AUTHORITIES = f"{_HOME}/authorities"

CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETFCAP", "SETGID", "SETUID")
"""What unpacking a base image and running a RUN as another user need; everything else is dropped."""


def kaniko(plan: Plan, settings: Settings) -> PodPart:
    """The plan in Kaniko's words."""
    env = git_credentials(settings) if plan.source.kind is SourceKind.GIT else []
    if settings.build.ca_config_map is not None:
        env.append({"name": "SSL_CERT_DIR", "value": f"{_HOME}/ssl/certs:{_AUTHORITIES}"})
    container = {
        "name": "kaniko",
        "image": settings.kaniko.image,
        "args": _arguments(plan, settings),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"], "add": list(CAPABILITIES)},
            "runAsUser": 0,
        },
    }
    return PodPart(
        container | ({"env": env} if env else {}),
        security={"seccompProfile": {"type": "RuntimeDefault"}},
        volumes=volumes(plan, settings, registry=f"{_HOME}/.docker", runtimes=_RUNTIMES, authorities=_AUTHORITIES),
    )


def _arguments(plan: Plan, settings: Settings) -> list[str]:
    arguments = [f"--context={kaniko_context(plan.source)}"]
    if plan.source.sub_path is not None:
        arguments.append(f"--context-sub-path={plan.source.sub_path}")
    if plan.language is not None:
        arguments.append(f"--dockerfile={_RUNTIMES}/{plan.language}.Dockerfile")
    elif plan.dockerfile is not None:
        arguments.append(f"--dockerfile={plan.dockerfile}")
    arguments.append(f"--destination={plan.image}")
    arguments += [f"--build-arg={name}={value}" for name, value in plan.arguments.items()]
    return arguments + _flags(settings)


def _flags(settings: Settings) -> list[str]:
    """What the settings say of every build."""
    kaniko = settings.kaniko
    flags = [f"--cache={str(kaniko.cache).lower()}"]
    if kaniko.cache and kaniko.cache_repository is not None:
        flags.append(f"--cache-repo={cache_repository(settings)}")
    flags += [f"--insecure-registry={host}" for host in kaniko.insecure_registries]
    for registry, mirrors in settings.build.registry_mirrors.items():
        name = "index.docker.io" if registry == "docker.io" else registry
        flags += [f"--registry-map={name}={mirror}" for mirror in mirrors]
    return [
        *flags,
        f"--push-retry={kaniko.push_retry}",
        # Halves the peak of memory (545 to 283 MiB for an image of 82 MB).
        "--compressed-caching=false",
        "--log-format=text",
        "--digest-file=/dev/termination-log",
    ]


def kaniko_context(source: Source) -> str:
    """Kaniko's word for a source: ``git://host/org/repo.git#refs/heads/main``, ``s3://…``, ``https://….tar.gz``."""
    if source.kind is not SourceKind.GIT:
        return source.location
    context = "git://" + source.location.removeprefix("https://")
    return context if source.ref is None else f"{context}#{source.ref}"
