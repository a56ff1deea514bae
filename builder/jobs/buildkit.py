"""BuildKit without root, one daemon for each build: https://github.com/moby/buildkit/blob/master/docs/rootless.md.

It is user 1000 in its container and makes a user namespace of its own. For that it needs setuid programs
(``allowPrivilegeEscalation`` stays on) and system calls that seccomp's default profile forbids, so Pod Security
"baseline" does not admit it.
"""

import json
from collections.abc import Mapping
from posixpath import join

from builder.jobs.engine import Part, Plan, PodPart, Volume, cache_repository, git_credentials, volumes
from builder.models import Source, SourceKind
from builder.settings import Settings

_HOME = "/home/user"
_RUNTIMES = f"{_HOME}/runtimes"
_CONFIG = "/tmp/buildkitd.toml"  # noqa: S108 -- in the container, which is this build's alone
_METADATA = "/tmp/metadata.json"  # noqa: S108 -- as above

# The shell's programs hold nothing of an event: what a user wrote comes in as "$@", or in a variable.
_WRITE_CONFIG = f'printf %s "$BUILDKITD_TOML" > {_CONFIG}'
_KNOW_GIT = 'export GIT_AUTH_HEADER="basic $(printf %s "$GIT_USERNAME:$GIT_PASSWORD" | base64 -w0)"'
_BUILD = (
    f'buildctl-daemonless.sh build --metadata-file {_METADATA} "$@" &',
    # As the container's first process, a shell that waits for a program in the foreground would not heed SIGTERM.
    "trap 'kill $!; exit 143' TERM",
    "wait $!",
    # buildctl cannot write there itself: it renames a file into place, and this place is a mount.
    rf"""digest=$(sed -n 's/^ *"containerimage\.digest": *"\([^"]*\)".*/\1/p' {_METADATA})""",
    'printf %s "$digest" > /dev/termination-log',  # the digest and nothing else, be it a line's end
)


def buildkit(plan: Plan, settings: Settings) -> PodPart:
    """The plan in BuildKit's words."""
    config = _config(settings)
    git = git_credentials(settings) if plan.source.kind is SourceKind.GIT else []
    steps = ["set -eu", *([_WRITE_CONFIG] if config else []), *([_KNOW_GIT] if git else []), *_BUILD]
    flags = f"--oci-worker-no-process-sandbox --config={_CONFIG}" if config else "--oci-worker-no-process-sandbox"
    env: list[Part] = [{"name": "BUILDKITD_FLAGS", "value": flags}]
    if config:
        env.append({"name": "BUILDKITD_TOML", "value": config})
    container = {
        "name": "buildkit",
        "image": settings.buildkit.image,
        "command": ["sh", "-c", "\n".join(steps), "build"],
        "args": _arguments(plan, settings),
        "env": env + git,
    }
    security = {
        "runAsUser": 1000,
        "runAsGroup": 1000,
        "runAsNonRoot": True,
        "seccompProfile": {"type": "Unconfined"},
        "appArmorProfile": {"type": "Unconfined"},
    }
    certificates = "ca-certificates.crt"
    # Not on the image's own file system: an overlay on an overlay does not work everywhere.
    state = Volume("state", {"emptyDir": {}}, f"{_HOME}/.local/share/buildkit", writable=True)
    given = volumes(
        plan,
        settings,
        registry=f"{_HOME}/.docker",
        runtimes=_RUNTIMES,
        authorities=f"/etc/ssl/certs/{certificates}",
        bundle=certificates,
    )
    return PodPart(container, security, [state, *given])


def _arguments(plan: Plan, settings: Settings) -> list[str]:
    """Each flag and its value apart: buildctl cuts white space off the end of ``--flag=value``."""
    pairs = [("--progress", "plain"), ("--frontend", "dockerfile.v0")]
    pairs += [("--opt", option) for option in _options(plan)]
    if plan.language is not None:
        pairs.append(("--local", f"dockerfile={_RUNTIMES}"))
    if settings.kaniko.git_secret is not None and plan.source.kind is SourceKind.GIT:
        # For this host alone: a Dockerfile's ADD may name others.
        name = f"GIT_AUTH_HEADER.{_host(plan.source)}"
        pairs.append(("--secret", _csv({"id": name, "env": "GIT_AUTH_HEADER"})))
    pairs.append(("--output", _csv({"type": "image", "name": plan.image, "push": "true"})))
    if settings.kaniko.cache:
        cache = {"type": "registry", "ref": f"{cache_repository(settings)}:{plan.cache_tag}"}
        pairs.append(("--import-cache", _csv(cache)))
        pairs.append(("--export-cache", _csv(cache | {"mode": "max", "ignore-error": "true"})))
    return [word for pair in pairs for word in pair]


def _options(plan: Plan) -> list[str]:
    """The Dockerfile frontend's: https://github.com/moby/buildkit/blob/master/frontend/dockerui/config.go."""
    source = plan.source
    options = [f"context={buildkit_context(source)}"]
    # A sub-path in the URL's fragment would do for Git and not for archives. This way the Dockerfile is looked for
    # from the root on.
    if source.sub_path is not None:
        options.append(f"contextsubdir={source.sub_path}")
    if plan.language is not None:
        options += ["dockerfilekey=dockerfile", f"filename={plan.language}.Dockerfile"]
    elif source.sub_path is not None or plan.dockerfile is not None:
        dockerfile = "Dockerfile" if plan.dockerfile is None else plan.dockerfile
        options.append(f"filename={join(source.sub_path or '', dockerfile)}")
    return options + [f"build-arg:{name}={value}" for name, value in plan.arguments.items()]


def buildkit_context(source: Source) -> str:
    """BuildKit's word for a source: ``https://host/org/repo.git#refs/heads/main`` or ``https://….tar.gz``."""
    if source.kind is not SourceKind.GIT:
        return source.location
    # It takes an address for a repository only if it ends so, and for a file otherwise.
    context = source.location.removesuffix(".git") + ".git"
    return context if source.ref is None else f"{context}#{source.ref}"


def _host(source: Source) -> str:
    return source.location.removeprefix("https://").partition("/")[0]


def _config(settings: Settings) -> str:
    """The daemon's configuration, as TOML, whose strings are written like JSON's; empty where it has nothing to say."""
    registries: dict[str, list[str]] = {}
    for registry, mirrors in settings.build.registry_mirrors.items():
        registries.setdefault(registry, []).append(f"mirrors = {json.dumps(mirrors)}")
    for registry in settings.kaniko.insecure_registries:
        registries.setdefault(registry, []).append("http = true")
    return "".join(f"[registry.{json.dumps(name)}]\n" + "\n".join(lines) + "\n" for name, lines in registries.items())


def _csv(fields: Mapping[str, str]) -> str:
    """Fields of one flag, by RFC 4180: a comma in a value begins no field of its own."""
    return ",".join(_quoted(f"{name}={value}") for name, value in fields.items())


def _quoted(field: str) -> str:
    if not any(char in field for char in ',"\r\n'):
        return field
    return '"' + field.replace('"', '""') + '"'
