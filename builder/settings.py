"""The settings: what there is, what is allowed, what holds when nothing is said.

Keys are in the spelling of the seeds (camelCase) outside and in snake_case here. Durations are seconds in here and
text with a unit outside. ``settings_sources`` reads them from a file, the environment and flags.
"""

from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator, model_validator

from builder.build_settings import Build, BuildKit, BuildPod, Kaniko, Kueue
from builder.rabbitmq_settings import Rabbitmq
from builder.setting_types import Duration, Host, NamespaceName, Port, Section


class Server(Section):
    """Where the HTTP door stands. Port 0 picks a free one."""

    host: str = "0.0.0.0"  # noqa: S104 -- a container's probe and Service come from outside
    port: Port = 8080


class Logging(Section):
    """``auto`` is readable on a terminal and JSON elsewhere."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


class Kubernetes(Section):
    """``namespace`` unset means the Pod's own, else the kubeconfig context's, else ``default``."""

    namespace: NamespaceName | None = None
    connect_timeout: Duration = 3.0
    request_timeout: Duration = 10.0


class Memory(Section):
    """How fast the embedded cluster plays a Job."""

    pending_time: Duration = 1.0
    build_time: Duration = 3.0
    deletion_time: Duration = 0.1


class AsyncJobCreator(Section):
    """The workers and their queue (004: Async Job Creator Settings)."""

    worker_count: Annotated[int, Field(ge=1, le=1000)] = 5
    max_retries: Annotated[int, Field(ge=0, le=100)] = 3
    retry_delay: Duration = 0.1
    max_retry_delay: Duration = 30.0
    max_queue_size: Annotated[int, Field(ge=1, le=1_000_000)] = 100
    max_waiting: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    capacity_timeout: Duration = 3600.0
    drain_timeout: Duration = 25.0

    @model_validator(mode="after")
    def _cap_above_base(self) -> "AsyncJobCreator":
        if self.max_retry_delay < self.retry_delay:
            msg = "maxRetryDelay must not be less than retryDelay"
            raise ValueError(msg)
        return self


class Intake(Section):
    """What the door lets in. ``slot_wait`` bounds how long a sender waits for a slot before it gets a 429."""

    max_body_size: Annotated[int, Field(ge=1024, le=64 * 2**20)] = 2**20
    body_timeout: Duration = 10.0
    slot_wait: Duration = 2.0
    custody_wait: Duration = 7.0
    reply: Literal["auto", "body", "empty"] = "auto"
    flows: Literal["both", "queue", "direct"] = "both"
    allowed_source_hosts: tuple[Host, ...] = ()


class Idempotency(Section):
    """How long, and how many, finished events are remembered so that a redelivery is recognised."""

    ttl: Duration = 86400.0
    max_entries: Annotated[int, Field(ge=1)] = 1_000_000


class Journal(Section):
    """Where accepted events are kept. ``path`` unset means the user's state folder."""

    path: str | None = None


MIN_TOKEN = 16
"""Characters of ``admin.token``: anybody who reaches the port may guess."""


class Admin(Section):
    """Who may replay and discard: those who know the token; without one, those who come by the loopback interface."""

    token: SecretStr | None = None

    @field_validator("token")
    @classmethod
    def _hard_to_guess(cls, token: SecretStr | None) -> SecretStr | None:
        if token is not None and len(token.get_secret_value()) < MIN_TOKEN:
            msg = f"must have {MIN_TOKEN} characters or more, such as those of `openssl rand -hex 16`; or leave it out"
            raise ValueError(msg)
        return token


class DeadLetters(Section):
    """Bounds of what is kept of events that failed; the oldest go first. ``replay_rate`` is in events per second."""

    max_count: Annotated[int, Field(ge=1)] = 10_000
    max_bytes: Annotated[int, Field(ge=1024)] = 64 * 2**20
    max_age: Duration = 30 * 24 * 3600.0
    replay_rate: Annotated[int, Field(ge=1, le=1000)] = 10


class Results(Section):
    """How long, and how many, outcomes can be asked for."""

    ttl: Duration = 3600.0
    max_entries: Annotated[int, Field(ge=1)] = 10_000


_PROMISES = {
    "journal": "202 means that the event is on disk",
    "sender": "202 means that the event's Job exists, or a later event's",
    "broker": "events over HTTP get a 503",
}
_OF_MESSAGES = "RabbitMQ keeps a message until its Job exists, or its dead letter"


class Settings(Section):
    """Everything that can be set."""

    cluster: Literal["kubernetes", "memory"] = "kubernetes"
    custody: Literal["journal", "sender", "broker"] = "journal"
    on_active_build: Literal["wait", "replace"] = "wait"
    server: Server = Server()
    logging: Logging = Logging()
    kubernetes: Kubernetes = Kubernetes()
    memory: Memory = Memory()
    async_job_creator: AsyncJobCreator = AsyncJobCreator()
    rabbitmq: Rabbitmq = Rabbitmq()
    intake: Intake = Intake()
    journal: Journal = Journal()
    admin: Admin = Admin()
    idempotency: Idempotency = Idempotency()
    dead_letters: DeadLetters = DeadLetters()
    results: Results = Results()
    build: Build = Build()
    build_pod: BuildPod = BuildPod()
    kaniko: Kaniko = Kaniko()
    buildkit: BuildKit = BuildKit()
    kueue: Kueue = Kueue()

    @model_validator(mode="after")
    def _git_credentials_stay_home(self) -> "Settings":
        if self.kaniko.git_secret is not None and not self.intake.allowed_source_hosts:
            msg = (
                "kaniko.gitSecret needs intake.allowedSourceHosts: the build shows the credentials to every Git host "
                "that an event names, so say which hosts may see them"
            )
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _broker_known(self) -> "Settings":
        if self.custody == "broker" and not self.rabbitmq.urls:
            msg = "custody: broker needs rabbitmq.url: events would have no way in (BUILDER_RABBITMQ__URL)"
            raise ValueError(msg)
        return self

    @model_validator(mode="after")
    def _registry_known(self) -> "Settings":
        if self.cluster == "kubernetes" and self.kaniko.registry is None:
            msg = (
                "kaniko.registry is not set: say where built images go, such as registry.example.com/team "
                "(BUILDER_KANIKO__REGISTRY); the embedded cluster (--cluster memory) needs none"
            )
            raise ValueError(msg)
        return self

    @property
    def promise(self) -> str:
        """What a sender may count on."""
        of_events = _PROMISES[self.custody]
        return f"{of_events}; {_OF_MESSAGES}" if self.rabbitmq.urls else of_events
