"""The settings of RabbitMQ, in the spelling of 004 ("RabbitMQ Settings")."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator

from builder.setting_types import Duration, NamespaceName, Section, parse_duration


def parse_ttl(value: object) -> int:
    """Milliseconds from a whole number of them, as 004 and RabbitMQ have it, or from a duration such as ``24h``."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    try:
        return round(parse_duration(value) * 1000)
    except ValueError:
        msg = "milliseconds are wanted, such as 86400000, or a duration with its unit, such as 24h"
        raise ValueError(msg) from None


Ttl = Annotated[int, BeforeValidator(parse_ttl), Field(ge=1)]
AmqpName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]+$", max_length=127)]
"""RabbitMQ allows more; this is what people and programs type without quoting."""


class Tls(Section):
    """For ``amqps``: the authority that signed the broker's certificate, and a certificate of our own."""

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None

    @model_validator(mode="after")
    def _key_has_certificate(self) -> "Tls":
        if self.key_file is not None and self.cert_file is None:
            msg = "keyFile needs certFile: a key alone proves nothing"
            raise ValueError(msg)
        return self


class Queue(Section):
    """A queue and its bounds. What RabbitMQ refuses for a quorum queue is refused here, with the reason."""

    name: AmqpName
    type: Literal["quorum", "classic"] = "quorum"
    durable: bool = True
    auto_delete: bool = False
    message_ttl: Ttl | None = None
    max_length: Annotated[int, Field(ge=1)] | None = None
    overflow: Literal["drop-head", "reject-publish"] = "reject-publish"

    @model_validator(mode="after")
    def _quorum_lasts(self) -> "Queue":
        if self.type == "quorum" and (not self.durable or self.auto_delete):
            msg = "a quorum queue is always durable and never autoDelete; with type: classic either can be had"
            raise ValueError(msg)
        return self


class KanikoJobs(Queue):
    """004's queue of build events. ``delivery_limit`` counts the tries that ended with the message given back."""

    name: AmqpName = "kaniko-jobs"
    message_ttl: Ttl | None = 86_400_000
    max_length: Annotated[int, Field(ge=1)] | None = 10_000
    overflow: Literal["drop-head", "reject-publish"] = "drop-head"
    dead_letter_exchange: AmqpName = "dlx"
    delivery_limit: Annotated[int, Field(ge=1)] = 20


class DeadLetterQueue(Queue):
    """Where what failed is kept. It refuses what is over its bound: throwing the oldest away would lose them."""

    name: AmqpName = "kaniko-jobs.dlq"
    max_length: Annotated[int, Field(ge=1)] | None = 100_000


class Queues(Section):
    """The queues that we use."""

    kaniko_jobs: KanikoJobs = KanikoJobs()
    dead_letters: DeadLetterQueue = DeadLetterQueue()


class Rabbitmq(Section):
    """The broker. Without a ``url`` none is used.

    ``url`` may name several, separated by commas: the nodes of one cluster, tried in turn. ``cluster_name``,
    ``namespace`` and ``connection_secret_name`` are for the manifests; the service reads the URL.
    """

    url: SecretStr | None = None
    management_url: SecretStr | None = None
    tls: Tls = Tls()
    connect_timeout: Duration = 5.0
    heartbeat: Duration = 20.0
    confirm_timeout: Duration = 30.0
    consumer_timeout: Duration = 1800.0
    exchange: AmqpName = "cloud-events"
    queues: Queues = Queues()
    cluster_name: str | None = None
    namespace: NamespaceName | None = None
    connection_secret_name: str | None = None

    @field_validator("url")
    @classmethod
    def _amqp_only(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not all(_is_amqp(one) for one in split_urls(url)):
            msg = "amqp://user:password@host:port/vhost is wanted, or amqps://…; several are separated by commas"
            raise ValueError(msg)
        return url

    @field_validator("management_url")
    @classmethod
    def _http_only(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not url.get_secret_value().startswith(("http://", "https://")):
            msg = "http://user:password@host:15672 is wanted, or https://…"
            raise ValueError(msg)
        return url

    @property
    def urls(self) -> tuple[str, ...]:
        """Each broker's, with its password; empty where none is set."""
        return () if self.url is None else split_urls(self.url)


def split_urls(url: SecretStr) -> tuple[str, ...]:
    """The single URLs of one setting."""
    return tuple(one.strip() for one in url.get_secret_value().split(","))


def _is_amqp(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("amqp", "amqps") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, or brackets that do not close
        return False
