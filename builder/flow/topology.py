"""What must be in the broker for no event to be lost: exchanges, queues and bindings, from the settings."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from builder.events.routing import EVENT_TYPES
from builder.rabbitmq_settings import Queue as QueueSettings
from builder.rabbitmq_settings import Rabbitmq

Arguments: TypeAlias = Mapping[str, str | int]

DELIVERY_LIMIT = "x-delivery-limit"
MAX_LENGTH = "x-max-length"
MESSAGE_TTL = "x-message-ttl"
OVERFLOW = "x-overflow"
DEAD_LETTER_EXCHANGE = "x-dead-letter-exchange"
DEAD_LETTER_STRATEGY = "x-dead-letter-strategy"
QUEUE_TYPE = "x-queue-type"

LOOKS = 1_000_000_000
"""The delivery limit of the dead letters. Looking at a message counts as a delivery, and must never use it up; with no
limit at all, a message that was looked at would go to the queue's end."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A durable exchange."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue with its arguments, in RabbitMQ's own words."""

    name: str
    durable: bool
    auto_delete: bool
    arguments: Arguments = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Binding:
    """By which messages of an exchange come into a queue."""

    exchange: str
    queue: str
    routing_key: str


@dataclass(frozen=True, slots=True)
class Topology:
    """All of them, in the order in which they can be made."""

    exchanges: tuple[Exchange, ...]
    queues: tuple[Queue, ...]
    bindings: tuple[Binding, ...]


def wanted(settings: Rabbitmq) -> Topology:
    """004's topology, with its dead letters and their bound."""
    jobs, dead = settings.queues.kaniko_jobs, settings.queues.dead_letters
    return Topology(
        exchanges=(Exchange(settings.exchange, "topic"), Exchange(jobs.dead_letter_exchange, "fanout")),
        queues=(_dead_letters(dead), _kaniko_jobs(settings)),
        bindings=(
            Binding(jobs.dead_letter_exchange, dead.name, ""),
            *(Binding(settings.exchange, jobs.name, event_type) for event_type in EVENT_TYPES),
        ),
    )


def _kaniko_jobs(settings: Rabbitmq) -> Queue:
    jobs = settings.queues.kaniko_jobs
    arguments = _bounds(jobs) | {DEAD_LETTER_EXCHANGE: jobs.dead_letter_exchange}
    if jobs.type == "quorum":
        arguments[DELIVERY_LIMIT] = jobs.delivery_limit
        if jobs.overflow == "reject-publish":  # only then RabbitMQ can keep a message until its dead letter is safe
            arguments[DEAD_LETTER_STRATEGY] = "at-least-once"
    return Queue(jobs.name, jobs.durable, jobs.auto_delete, arguments)


def _dead_letters(dead: QueueSettings) -> Queue:
    limit = {DELIVERY_LIMIT: LOOKS} if dead.type == "quorum" else {}
    return Queue(dead.name, dead.durable, dead.auto_delete, _bounds(dead) | limit)


def _bounds(queue: QueueSettings) -> dict[str, str | int]:
    bounds = {MESSAGE_TTL: queue.message_ttl, MAX_LENGTH: queue.max_length}
    return {
        QUEUE_TYPE: queue.type,
        **{name: value for name, value in bounds.items() if value is not None},
        OVERFLOW: queue.overflow,
    }
