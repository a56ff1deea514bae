"""Both engines get the same plan, and nothing that a user wrote becomes anything but a value."""

import csv
import io
import json
import re
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import EventRejected
from builder.events.request import build_request
from builder.jobs.buildkit import buildkit_context
from builder.jobs.kaniko import kaniko_context
from builder.jobs.manifest import build_job
from builder.models import BuildRequest, BuildType, Source, SourceKind
from builder.settings import Settings
from tests import building

IMAGE = "registry.example.com/knative-lambdas:acme-parser1--whfe7k3pudgxyvmvmiyh"
CACHE = "type=registry,ref=registry.example.com/knative-lambdas/cache:acme-parser1--ediqompy4vpd4f6h4hrw"
HOME = "/home/user"
BUILDKIT = {"build": {"engine": "buildkit"}}
SECRETS = {"GIT_USERNAME": "secret-name", "GIT_PASSWORD": "secret-word", "SSL_CERT_DIR": "/certs"}

SCRIPT = r"""set -eu
buildctl-daemonless.sh build --metadata-file /tmp/metadata.json "$$@" &
trap 'kill $$!; exit 143' TERM
wait $$!
digest=$$(sed -n 's/^ *"containerimage\.digest": *"\([^"]*\)".*/\1/p' /tmp/metadata.json)
printf %s "$$digest" > /dev/termination-log"""

BUILDKIT_POD: dict[str, Any] = {
    "restartPolicy": "Never",
    "automountServiceAccountToken": False,
    "enableServiceLinks": False,
    "securityContext": {
        "runAsUser": 1000,
        "runAsGroup": 1000,
        "runAsNonRoot": True,
        "seccompProfile": {"type": "Unconfined"},
        "appArmorProfile": {"type": "Unconfined"},
    },
    "containers": [
        {
            "name": "buildkit",
            "image": "docker.io/moby/buildkit:v0.33.1-rootless",
            "command": [
                "sh",
                "-c",
                SCRIPT,
                "build",
            ],
            "args": [
                *("--progress", "plain"),
                *("--frontend", "dockerfile.v0"),
                *("--opt", "context=https://git.example.com/acme/parser1.git"),
                *("--output", f"type=image,name={IMAGE},push=true"),
                *("--import-cache", CACHE),
                *("--export-cache", f"{CACHE},mode=max,ignore-error=true"),
            ],
            "env": [{"name": "BUILDKITD_FLAGS", "value": "--oci-worker-no-process-sandbox"}],
            "resources": {
                "requests": {"cpu": "500m", "memory": "512Mi", "ephemeral-storage": "1Gi"},
                "limits": {"cpu": "2", "memory": "2Gi", "ephemeral-storage": "10Gi"},
            },
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": [{"name": "state", "mountPath": f"{HOME}/.local/share/buildkit"}],
        }
    ],
    "volumes": [{"name": "state", "emptyDir": {}}],
}


def pod_of(request: BuildRequest, settings: Settings) -> dict[str, Any]:
    """The Pod's spec in a request's Job."""
    pod = build_job(request, settings)["spec"]["template"]["spec"]
    assert isinstance(pod, dict)
    return pod


def kubelets(container: dict[str, Any]) -> list[str]:
    """A container's arguments as the kubelet hands them over, with the Secrets in the environment.

    https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables
    """
    expand = re.compile(r"\$(?:(\$)|\(([^)]*)\))")

    def meaning(match: re.Match[str]) -> str:
        return "$" if match[1] else SECRETS.get(match[2], match[0])

    return [expand.sub(meaning, argument) for argument in container["args"]]


def pairs(arguments: list[str]) -> list[tuple[str, str]]:
    """BuildKit's flags, each with its value."""
    return list(zip(arguments[::2], arguments[1::2], strict=True))


def fields(text: str) -> dict[str, str]:
    """One value of comma-separated fields, as Go's csv reader takes it."""
    (row,) = csv.reader(io.StringIO(text))
    return dict(field.split("=", 1) for field in row)


def test_the_smallest_request_for_buildkit() -> None:
    """Another container; everything about the Job beside its Pod stays the same."""
    usual = build_job(building.request(), building.settings())
    job = build_job(building.request(), building.settings(**BUILDKIT))
    assert job["spec"]["template"]["spec"] == BUILDKIT_POD
    usual["spec"]["template"]["spec"] = BUILDKIT_POD
    usual["spec"]["template"]["metadata"]["annotations"] = {"kubectl.kubernetes.io/default-container": "buildkit"}
    assert job == usual


def test_everything_that_a_request_can_say_for_buildkit() -> None:
    """Source, Dockerfile, arguments, credentials, registries and certificates, each in BuildKit's own words."""
    settings = building.settings(
        build={"engine": "buildkit", "registryMirrors": {"docker.io": ["m.example.com/hub"]}, "caConfigMap": "trust"},
        kaniko={
            "registry": "r.example.com:5000",
            "registrySecret": "push",
            "gitSecret": "pull",
            "cacheRepository": "c.example.com/layers",
            "insecureRegistries": ["r.example.com:5000"],
        },
        intake={"allowedSourceHosts": ["git.example.com"]},
    )
    source = Source(SourceKind.GIT, "https://git.example.com:8443/acme/parser1", "refs/heads/x", "api/v1")
    request = building.request(source=source, dockerfile="docker/Dockerfile.prod", environment={"A": "1,b=2"})
    (container,) = pod_of(request, settings)["containers"]
    cache = "type=registry,ref=c.example.com/layers:acme-parser1--ediqompy4vpd4f6h4hrw"
    image = "r.example.com:5000/knative-lambdas:acme-parser1--whfe7k3pudgxyvmvmiyh"
    assert pairs(container["args"]) == [
        ("--progress", "plain"),
        ("--frontend", "dockerfile.v0"),
        ("--opt", "context=https://git.example.com:8443/acme/parser1.git#refs/heads/x"),
        ("--opt", "contextsubdir=api/v1"),
        ("--opt", "filename=api/v1/docker/Dockerfile.prod"),
        ("--opt", "build-arg:A=1,b=2"),
        ("--secret", "id=GIT_AUTH_HEADER.git.example.com:8443,env=GIT_AUTH_HEADER"),
        ("--output", f"type=image,name={image},push=true"),
        ("--import-cache", cache),
        ("--export-cache", f"{cache},mode=max,ignore-error=true"),
    ]
    assert container["command"][2].splitlines()[1:3] == [
        'printf %s "$$BUILDKITD_TOML" > /tmp/buildkitd.toml',
        'export GIT_AUTH_HEADER="basic $$(printf %s "$$GIT_USERNAME:$$GIT_PASSWORD" | base64 -w0)"',
    ]
    toml = '[registry."docker.io"]\nmirrors = ["m.example.com/hub"]\n[registry."r.example.com:5000"]\nhttp = true\n'
    assert container["env"] == [
        {"name": "BUILDKITD_FLAGS", "value": "--oci-worker-no-process-sandbox --config=/tmp/buildkitd.toml"},
        {"name": "BUILDKITD_TOML", "value": toml},
        {"name": "GIT_USERNAME", "valueFrom": {"secretKeyRef": {"name": "pull", "key": "username"}}},
        {"name": "GIT_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "pull", "key": "password"}}},
    ]
    registries = {"docker.io": {"mirrors": ["m.example.com/hub"]}, "r.example.com:5000": {"http": True}}
    assert tomllib.loads(toml) == {"registry": registries}
    bundle = "ca-certificates.crt"
    assert container["volumeMounts"] == [
        {"name": "state", "mountPath": f"{HOME}/.local/share/buildkit"},
        {"name": "registry", "mountPath": f"{HOME}/.docker", "readOnly": True},
        {"name": "authorities", "mountPath": f"/etc/ssl/certs/{bundle}", "subPath": bundle, "readOnly": True},
    ]


def test_the_runtimes_dockerfile_for_buildkit() -> None:
    """The source is the context, and its own Dockerfile is not looked at."""
    source = Source(SourceKind.ARCHIVE, "https://example.com/a.tar.gz", None, "sub")
    request = building.request(source=source, build_type=BuildType.FUNCTION, runtime="go1.24")
    pod = pod_of(request, building.settings(**BUILDKIT))
    assert pairs(pod["containers"][0]["args"])[2:9] == [
        ("--opt", "context=https://example.com/a.tar.gz"),
        ("--opt", "contextsubdir=sub"),
        ("--opt", "dockerfilekey=dockerfile"),
        ("--opt", "filename=go.Dockerfile"),
        ("--opt", "build-arg:RUNTIME=go1.24"),
        ("--opt", "build-arg:BASE_IMAGE=docker.io/library/golang:1.24"),
        ("--local", f"dockerfile={HOME}/runtimes"),
    ]
    assert pod["volumes"][1] == {"name": "runtimes", "configMap": {"name": "knative-lambda-runtimes"}}


def test_no_cache_for_buildkit() -> None:
    """The setting holds for both engines."""
    settings = building.settings(**BUILDKIT, kaniko={"cache": False})
    flags = [flag for flag, _ in pairs(pod_of(building.request(), settings)["containers"][0]["args"])]
    assert flags == ["--progress", "--frontend", "--opt", "--output"]


@pytest.mark.parametrize(
    ("source", "kanikos", "buildkits"),
    [
        (("https://github.com/a/b.git",), "git://github.com/a/b.git", "https://github.com/a/b.git"),
        (("https://h.org/b", "refs/heads/x"), "git://h.org/b#refs/heads/x", "https://h.org/b.git#refs/heads/x"),
        (("https://h.org/b", "a" * 40), f"git://h.org/b#{'a' * 40}", f"https://h.org/b.git#{'a' * 40}"),
    ],
)
def test_git_contexts(source: tuple[str, ...], kanikos: str, buildkits: str) -> None:
    """A repository in the words of each. BuildKit takes what does not end in ``.git`` for a file."""
    assert kaniko_context(Source(SourceKind.GIT, *source)) == kanikos
    assert buildkit_context(Source(SourceKind.GIT, *source)) == buildkits


@pytest.mark.parametrize("context", [kaniko_context, buildkit_context])
def test_archive_contexts(context: Any) -> None:
    """An archive's address is its own context."""
    assert context(Source(SourceKind.ARCHIVE, "https://h.org/a.tar.gz?x=1")) == "https://h.org/a.tar.gz?x=1"


def test_a_bucket_is_refused_at_the_door_where_nobody_could_read_it() -> None:
    """The sender learns it at once, and not from a failed build."""
    event = building.event(source_url="s3://bucket/a.tar.gz")
    usual, settings = building.settings(), building.settings(**BUILDKIT)
    assert (
        kaniko_context(build_request(event, building.NOON, usual.build, usual.intake).source) == "s3://bucket/a.tar.gz"
    )
    with pytest.raises(EventRejected, match=r"source_url: must begin with https://: buildkit reads no buckets"):
        build_request(event, building.NOON, settings.build, settings.intake)


@pytest.mark.parametrize("engine", ["kaniko", "buildkit"])
def test_an_event_names_no_frontend(engine: str) -> None:
    """BuildKit runs the image that the build argument BUILDKIT_SYNTAX names."""
    settings = building.settings(build={"engine": engine})
    event = building.event(environment={"BUILDKIT_SYNTAX": "evil.example.com/frontend"})
    with pytest.raises(EventRejected, match=r"environment\.BUILDKIT_SYNTAX: would steer the build engine itself"):
        build_request(event, building.NOON, settings.build, settings.intake)


# --- anything that may come --------------------------------------------------------------------------------------------

HOSTILE = st.text(
    st.one_of(st.sampled_from("$(),=\"\\\n\r\t;|&`' -#%:{}"), st.characters(codec="utf-8", exclude_characters="\0")),
    max_size=60,
)
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True).filter(
    lambda name: name not in {"RUNTIME", "BASE_IMAGE"} and not name.startswith("BUILDKIT_")
)
PARAMETERS = st.fixed_dictionaries(
    {
        "source_url": st.sampled_from(
            ["https://git.example.com/a/b", "https://git.example.com/a.tar.gz?q=1,2;$(X)&=%20"]
        )
    },
    optional={
        "environment": st.dictionaries(
            NAMES, st.one_of(HOSTILE, st.just("$(GIT_PASSWORD)"), st.just("$$(GIT_PASSWORD)"))
        ),
        "ref": st.one_of(st.just("main"), st.just("a=b,c"), HOSTILE),
        "sub_path": st.one_of(st.just("a=b/c"), HOSTILE),
        "dockerfile": st.one_of(st.just("a=b/c"), HOSTILE),
        "runtime": st.sampled_from(["python3.12", "nodejs18"]),
        "build_type": st.sampled_from(["container", "function"]),
    },
)


def accepted(parameters: dict[str, Any], settings: Settings) -> BuildRequest | None:
    """The request of an event, or None if the door says no."""
    try:
        return build_request(building.event(**parameters), building.NOON, settings.build, settings.intake)
    except EventRejected:
        return None


@given(parameters=PARAMETERS)
def test_kaniko_takes_a_value_for_a_value(parameters: dict[str, Any]) -> None:
    """Whatever the door lets in adds no flag, and no Secret is expanded into it."""
    settings = building.settings(
        kaniko={"registry": "r", "gitSecret": "g"}, intake={"allowedSourceHosts": ["git.example.com"]}
    )
    request = accepted(parameters, settings)
    if request is None:
        return
    (container,) = pod_of(request, settings)["containers"]
    arguments = kubelets(container)
    environment = {f"--build-arg={name}={value}" for name, value in parameters.get("environment", {}).items()}
    own = {"--context", "--context-sub-path", "--dockerfile", "--destination", "--cache", "--push-retry"}
    own |= {"--compressed-caching", "--log-format", "--digest-file"}
    names = [argument.partition("=")[0] for argument in arguments if argument not in environment]
    arguments_of_ours = 0 if request.runtime is None else 2 if request.build_type is BuildType.FUNCTION else 1
    assert environment <= set(arguments)
    assert names.count("--build-arg") == arguments_of_ours
    assert set(names) - {"--build-arg"} <= own
    assert len(names) - arguments_of_ours == len(set(names) - {"--build-arg"})


@given(parameters=PARAMETERS)
def test_buildkit_takes_a_value_for_a_value(parameters: dict[str, Any]) -> None:
    """The same; and no field of a comma-separated flag comes from an event."""
    settings = building.settings(
        **BUILDKIT, kaniko={"registry": "r", "gitSecret": "g"}, intake={"allowedSourceHosts": ["git.example.com"]}
    )
    request = accepted(parameters, settings)
    if request is None:
        return
    (container,) = pod_of(request, settings)["containers"]
    flags = pairs(kubelets(container))
    options = dict(value.split("=", 1) for flag, value in flags if flag == "--opt")
    own = {"context", "contextsubdir", "filename", "dockerfilekey"}
    environment = parameters.get("environment", {})
    given_arguments = {name: value for name, value in options.items() if name not in own}
    assert {f"build-arg:{name}": value for name, value in environment.items()}.items() <= given_arguments.items()
    assert set(given_arguments) - {f"build-arg:{name}" for name in environment} <= {
        "build-arg:RUNTIME",
        "build-arg:BASE_IMAGE",
    }
    (output,) = (fields(value) for flag, value in flags if flag == "--output")
    assert output.keys() == {"type", "name", "push"}
    assert [fields(value).keys() for flag, value in flags if flag == "--secret"] in ([], [{"id", "env"}])
    known = {"--progress", "--frontend", "--opt", "--output", "--secret", "--local", "--import-cache", "--export-cache"}
    assert {flag for flag, _ in flags} <= known
    fixed = pod_of(building.request(source=request.source), settings)["containers"][0]
    assert container["command"] == fixed["command"]
    assert json.dumps(container["env"]) == json.dumps(fixed["env"])
