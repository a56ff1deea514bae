"""The settings of the builds themselves: what an event may ask for, who builds it, and the Pod that it gets."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from builder.setting_types import Duration, Host, LabelValue, Name, Quantity, Registry, Repository, Section


class Runtime(Section):
    """What a runtime's word stands for: the Dockerfile of its language and the image that this starts from."""

    language: Literal["nodejs", "python", "go"]
    base_image: str


def _default_runtimes() -> dict[str, Runtime]:
    nodes = {
        f"nodejs{v}": Runtime(language="nodejs", base_image=f"docker.io/library/node:{v}-slim") for v in (18, 20, 22)
    }
    pythons = {
        f"python3.{v}": Runtime(language="python", base_image=f"docker.io/library/python:3.{v}-slim")
        for v in (11, 12, 13)
    }
    gos = {f"go1.{v}": Runtime(language="go", base_image=f"docker.io/library/golang:1.{v}") for v in (23, 24, 25)}
    return nodes | pythons | gos


class Build(Section):
    """What an event may ask for, and what holds where it says nothing. Timeouts are of the build itself."""

    engine: Literal["kaniko", "buildkit"] = "kaniko"
    source_template: str | None = None
    default_timeout: Duration = 1800.0
    max_timeout: Duration = 7200.0
    two_level_hosts: tuple[Host, ...] = ("github.com", "bitbucket.org", "codeberg.org")
    runtimes: dict[str, Runtime] = Field(default_factory=_default_runtimes)
    runtimes_config_map: Name = "knative-lambda-runtimes"
    registry_mirrors: dict[Registry, tuple[Repository, ...]] = Field(default_factory=dict)
    ca_config_map: Name | None = None

    @property
    def reads_buckets(self) -> bool:
        """True if the engine can fetch its source from ``s3://`` and ``gs://``."""
        return self.engine == "kaniko"

    @model_validator(mode="after")
    def _default_fits(self) -> "Build":
        if not 1 <= self.default_timeout <= self.max_timeout:
            msg = "defaultTimeout must be between 1s and maxTimeout"
            raise ValueError(msg)
        return self


ENGINE_NEEDS = {
    "kaniko": 'Pod Security "baseline" admits its Pods',
    "buildkit": 'only Pod Security "privileged" admits its Pods: "baseline" refuses them, for seccomp is off',
}


class Toleration(Section):
    """Kubernetes' own: a taint that build Pods put up with."""

    key: str | None = None
    operator: Literal["Exists", "Equal"] | None = None
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: int | None = None


class BuildPod(Section):
    """Where builds run and behind which walls. What is left out is the cluster's own choice."""

    host_users: bool = True
    runtime_class_name: Name | None = None
    node_selector: dict[str, LabelValue] = Field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    priority_classes: dict[Annotated[int, Field(ge=1, le=10)], Name] = Field(default_factory=dict)


class Kueue(Section):
    """A queue of https://kueue.sigs.k8s.io decides when a Job may start."""

    queue_name: Name | None = None


class Requests(Section):
    """What the scheduler sets aside for a build."""

    cpu: Quantity = "500m"
    memory: Quantity = "512Mi"
    ephemeral_storage: Quantity = "1Gi"


class Limits(Section):
    """Where a build is stopped."""

    cpu: Quantity = "2"
    memory: Quantity = "2Gi"
    ephemeral_storage: Quantity = "10Gi"


class Kaniko(Section):
    """The build, whichever engine does it; ``image`` and ``push_retry`` are Kaniko's own.

    Secrets are named here and nowhere else: an event can never name one.
    """

    image: str = "ghcr.io/osscontainertools/kaniko:v1.28.3"
    registry: Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]+(:[0-9]+)?(/[a-z0-9._/-]+)?$")] | None = None
    repository: Annotated[str, Field(pattern=r"^[a-z0-9]+([._/-][a-z0-9]+)*$")] = "knative-lambdas"
    registry_secret: Name | None = None
    git_secret: Name | None = None
    service_account: Name | None = None
    cache: bool = True
    cache_repository: Repository | None = None
    insecure_registries: tuple[Registry, ...] = ()
    push_retry: Annotated[int, Field(ge=0, le=10)] = 3
    backoff_limit: Annotated[int, Field(ge=0, le=10)] = 0
    ttl_after_finished: Duration = 3600.0
    requests: Requests = Requests()
    limits: Limits = Limits()


class BuildKit(Section):
    """BuildKit's own, for ``build.engine: buildkit``."""

    image: str = "docker.io/moby/buildkit:v0.33.1-rootless"
