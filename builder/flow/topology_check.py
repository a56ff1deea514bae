"""What the broker has against what is wanted: each difference, how it loses messages if it does, and the way out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from builder.flow.topology import (
    DEAD_LETTER_EXCHANGE,
    DELIVERY_LIMIT,
    MESSAGE_TTL,
    OVERFLOW,
    QUEUE_TYPE,
    Arguments,
    Binding,
    Exchange,
    Queue,
    Topology,
)

Value: TypeAlias = str | int | bool | None

MISSING = "is missing"
_DECLARE = "topology declare makes it"
_NEW_QUEUE = (
    "the arguments of a queue cannot be changed: declare one of another name (rabbitmq.queues in the settings), move "
    "the messages with a shovel and delete {}; or let the settings say what the broker has"
)
_DEFAULTS: Mapping[str, Value] = {OVERFLOW: "drop-head", QUEUE_TYPE: "classic", "durable": True, "auto_delete": False}
"""What RabbitMQ takes where a queue says nothing."""
_FIXED = frozenset({QUEUE_TYPE, "durable", "auto_delete"})
"""What no policy can set."""


@dataclass(frozen=True, slots=True)
class QueueFound:
    """A queue as it is. ``policy`` is what policies say, by argument without ``x-``; None where that cannot be seen."""

    durable: bool
    auto_delete: bool
    arguments: Arguments
    policy: Arguments | None

    def value(self, name: str) -> Value:
        """What holds: of an argument and a policy the lower number, else the argument."""
        if name in ("durable", "auto_delete"):
            return self.durable if name == "durable" else self.auto_delete
        argument, policy = self.arguments.get(name), (self.policy or {}).get(name.removeprefix("x-"))
        if isinstance(argument, int) and isinstance(policy, int):
            return min(argument, policy)
        set_by = policy if argument is None else argument
        return _DEFAULTS.get(name) if set_by is None else set_by


@dataclass(frozen=True, slots=True)
class Found:
    """What the broker has of what is wanted. ``exchanges`` have their type; what is not there is not in here.

    ``bindings`` is None where they cannot be seen. ``unreadable`` are the broker's own words on a queue that is there
    and could not be compared.
    """

    exchanges: Mapping[str, str]
    queues: Mapping[str, QueueFound]
    bindings: frozenset[Binding] | None = None
    unreadable: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as wanted. ``loses`` says which messages are lost by it; empty where none are."""

    what: str
    problem: str
    way_out: str
    loses: str = ""


def differences(want: Topology, found: Found) -> list[Difference]:
    """All of them; those that lose messages first. What cannot be seen is no difference, see ``unseen``."""
    dead_letters = want.bindings[0].queue
    every = [
        *_exchanges(want, found),
        *(one for queue in want.queues for one in _queue(queue, found, is_dead_letters=queue.name == dead_letters)),
        *_bindings(want, found),
    ]
    return sorted(every, key=lambda one: not one.loses)


@dataclass(frozen=True, slots=True)
class Report:
    """The whole comparison. ``notes`` say what was tried in vain in order to see more."""

    want: Topology
    found: Found
    notes: tuple[str, ...] = ()

    @property
    def differences(self) -> list[Difference]:
        """All of them; those that lose messages first. What cannot be seen is no difference."""
        return differences(self.want, self.found)

    @property
    def unseen(self) -> list[str]:
        """What could not be compared, and why."""
        hint = "" if self.notes else "; set rabbitmq.managementUrl"
        bindings = self.found.bindings is None
        policies = any(queue.policy is None for queue in self.found.queues.values())
        hidden = [name for name, is_hidden in (("bindings", bindings), ("policies", policies)) if is_hidden]
        return [*self.notes, *(f"{name}: AMQP does not show them{hint}" for name in hidden)]

    def with_bindings(self) -> "Report":
        """As if those that are wanted had been seen: they have just been made."""
        return replace(self, found=replace(self.found, bindings=frozenset(self.want.bindings)))

    def made_since(self, before: "Report") -> list[str]:
        """What was missing before and is not any more."""
        still = {one.what for one in self.differences}
        return [one.what for one in before.differences if one.problem == MISSING and one.what not in still]


def _exchanges(want: Topology, found: Found) -> Iterator[Difference]:
    for exchange in want.exchanges:
        what, is_type = f"exchange {exchange.name}", found.exchanges.get(exchange.name)
        if is_type is None:
            yield Difference(what, MISSING, _DECLARE, _loss_without(exchange, want))
        elif is_type != exchange.type:
            yield Difference(
                what,
                f"is of type {is_type}, wanted is {exchange.type}",
                f"an exchange cannot be changed: delete {exchange.name} and run topology declare, or name another one "
                "in the settings",
                "messages whose routing key its type does not match" if exchange.type == "topic" else "",
            )


def _loss_without(exchange: Exchange, want: Topology) -> str:
    if exchange.name == want.bindings[0].exchange:
        return "what expires, overflows or is rejected: the broker drops it silently"
    return "what is published to it: the broker refuses it, and senders must keep it"


def _queue(queue: Queue, found: Found, *, is_dead_letters: bool) -> Iterator[Difference]:
    what, there = f"queue {queue.name}", found.queues.get(queue.name)
    if queue.name in found.unreadable:
        yield Difference(what, found.unreadable[queue.name], _NEW_QUEUE.format(queue.name))
    elif there is None:
        lost = "every dead letter" if is_dead_letters else "every event that is published for it"
        yield Difference(what, MISSING, _DECLARE, lost)
    else:
        want: dict[str, Value] = {"durable": queue.durable, "auto_delete": queue.auto_delete, **queue.arguments}
        for name in dict.fromkeys((*want, *there.arguments, *(f"x-{key}" for key in there.policy or {}))):
            is_value, want_value = there.value(name), want.get(name, _DEFAULTS.get(name))
            if is_value != want_value:
                loses = _loss(name, is_value, there, is_dead_letters=is_dead_letters)
                problem = f"{name} is {_shown(is_value)}, wanted is {_shown(want_value)}"
                yield Difference(what, problem, _way_out(queue, name, there), loses)


def _loss(name: str, value: Value, queue: QueueFound, *, is_dead_letters: bool) -> str:
    """Which messages are lost by an argument that is not as wanted."""
    if name == "durable" and not value:
        return "everything in it when the broker restarts"
    if name == "auto_delete" and value:
        return "everything in it when its last consumer goes"
    if name == "x-expires":
        return "everything in it when nobody uses it for so long"
    if is_dead_letters:
        return {
            OVERFLOW: "the oldest dead letters, when it is full" if value == "drop-head" else "",
            MESSAGE_TTL: "" if value is None else "every dead letter, after that time",
            DELIVERY_LIMIT: "" if value is None else "dead letters that were looked at so often",
        }.get(name, "")
    if name == DEAD_LETTER_EXCHANGE and value is None:
        full = ", and the oldest when it is full" if queue.value(OVERFLOW) == "drop-head" else ""
        return f"what expires or is rejected{full}: it has no dead-letter exchange"
    if name == DEAD_LETTER_EXCHANGE:
        return "what expires, overflows or is rejected, unless that exchange leads to a queue"
    return ""


def _bindings(want: Topology, found: Found) -> Iterator[Difference]:
    if found.bindings is None:
        return
    for binding in want.bindings:
        # Of one that lacks an end it is said already that the end is missing.
        ends_there = binding.exchange in found.exchanges and binding.queue in found.queues
        if ends_there and binding not in found.bindings and not _covered(binding, found.bindings):
            key = f" by {binding.routing_key}" if binding.routing_key else ""
            is_dead_letters = binding == want.bindings[0]
            loses = (
                "what expires, overflows or is rejected: the broker drops it silently"
                if is_dead_letters
                else f"events of type {binding.routing_key} that are published to {binding.exchange}"
            )
            what = f"binding {binding.exchange} → {binding.queue}{key}"
            yield Difference(what, MISSING, _DECLARE, loses)


def _covered(binding: Binding, found: frozenset[Binding]) -> bool:
    """True if another binding between the same two lets the same messages through; a fanout's key says nothing."""
    between = [one.routing_key for one in found if (one.exchange, one.queue) == (binding.exchange, binding.queue)]
    return any(binding.routing_key == "" or _matches(key.split("."), binding.routing_key.split(".")) for key in between)


def _matches(pattern: Sequence[str], words: Sequence[str]) -> bool:
    """A topic exchange's rule: ``*`` stands for one word, ``#`` for any number of them."""
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(_matches(pattern[1:], words[skipped:]) for skipped in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and _matches(pattern[1:], words[1:])


def _way_out(queue: Queue, name: str, there: QueueFound) -> str:
    """What can be done about an argument, which can never be changed on a queue that exists."""
    value = queue.arguments.get(name)
    if name not in _FIXED and value is not None and name not in there.arguments:
        policy = f'{{"{name.removeprefix("x-")}": {_json(value)}}}'
        return f"a policy can add it: rabbitmqctl set_policy --apply-to queues NAME '^{queue.name}$' '{policy}'"
    return _NEW_QUEUE.format(queue.name)


def _json(value: str | int) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def _shown(value: Value) -> str:
    match value:
        case None:
            return "not set"
        case bool():
            return str(value).lower()
        case _:
            return str(value)
