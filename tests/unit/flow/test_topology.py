"""The topology that is wanted, and what is said of a broker that has another."""

from dataclasses import replace
from typing import Any

import pytest

from builder.flow.topology import Binding, Exchange, Queue, Topology, wanted
from builder.flow.topology_check import Found, QueueFound, Report
from builder.rabbitmq_settings import Rabbitmq

WANT = wanted(Rabbitmq())
JOBS = WANT.queues[1]
TYPES = (
    "network.notifi.lambda.job.start",
    "io.knative.lambda.command.build.start",
    "network.notifi.lambda.build.start",
    "lambda.build.start",
)


def found(want: Topology = WANT) -> Found:
    """A broker that has it all."""
    return Found(
        exchanges={one.name: one.type for one in want.exchanges},
        queues={one.name: QueueFound(one.durable, one.auto_delete, one.arguments, {}) for one in want.queues},
        bindings=frozenset(want.bindings),
    )


def with_queue(name: str = "kaniko-jobs", policy: dict[str, Any] | None = None, **arguments: Any) -> Found:
    """A broker whose queue has other arguments; None stands for one that it has not."""
    there = found()
    queue = there.queues[name]
    changed = {**queue.arguments} | {f"x-{key.replace('_', '-')}": value for key, value in arguments.items()}
    kept = {key: value for key, value in changed.items() if value is not None}
    return replace(there, queues={**there.queues, name: replace(queue, arguments=kept, policy=policy or {})})


def said(there: Found) -> list[tuple[str, str, str]]:
    return [(one.what, one.problem, one.loses) for one in Report(WANT, there).differences]


def test_004s_topology() -> None:
    """Whole, as the broker is told."""
    assert (
        Topology(
            exchanges=(Exchange("cloud-events", "topic"), Exchange("dlx", "fanout")),
            queues=(
                Queue(
                    "kaniko-jobs.dlq",
                    durable=True,
                    auto_delete=False,
                    arguments={
                        "x-queue-type": "quorum",
                        "x-max-length": 100_000,
                        "x-overflow": "reject-publish",
                        "x-delivery-limit": 1_000_000_000,
                    },
                ),
                Queue(
                    "kaniko-jobs",
                    durable=True,
                    auto_delete=False,
                    arguments={
                        "x-queue-type": "quorum",
                        "x-message-ttl": 86_400_000,
                        "x-max-length": 10_000,
                        "x-overflow": "drop-head",
                        "x-dead-letter-exchange": "dlx",
                        "x-delivery-limit": 20,
                    },
                ),
            ),
            bindings=(
                Binding("dlx", "kaniko-jobs.dlq", ""),
                *(Binding("cloud-events", "kaniko-jobs", one) for one in TYPES),
            ),
        )
        == WANT
    )


def test_what_only_quorum_queues_take() -> None:
    """A classic queue would be refused with a delivery limit; at-least-once needs reject-publish."""
    tree = {"queues": {"kanikoJobs": {"type": "classic"}, "deadLetters": {"type": "classic"}}}
    assert not any("x-delivery-limit" in queue.arguments for queue in wanted(Rabbitmq.model_validate(tree)).queues)
    tree = {"queues": {"kanikoJobs": {"overflow": "reject-publish"}}}
    assert wanted(Rabbitmq.model_validate(tree)).queues[1].arguments["x-dead-letter-strategy"] == "at-least-once"


def test_all_there() -> None:
    report = Report(WANT, found())
    assert (report.differences, report.unseen) == ([], [])


def test_nothing_there() -> None:
    """Each missing part once, with what is lost; not a binding whose ends are missing anyway."""
    report = Report(WANT, Found({}, {}, frozenset()))
    assert [(one.what, one.problem) for one in report.differences] == [
        ("exchange cloud-events", "is missing"),
        ("exchange dlx", "is missing"),
        ("queue kaniko-jobs.dlq", "is missing"),
        ("queue kaniko-jobs", "is missing"),
    ]
    assert all(one.loses for one in report.differences)


@pytest.mark.parametrize(
    ("there", "problem", "loses"),
    [
        (with_queue(dead_letter_exchange=None), "x-dead-letter-exchange is not set, wanted is dlx", "what expires or is rejected, and the oldest when it is full: it has no dead-letter exchange"),
        (with_queue(dead_letter_exchange="other"), "x-dead-letter-exchange is other, wanted is dlx", "what expires, overflows or is rejected, unless that exchange leads to a queue"),
        (with_queue(max_length=5), "x-max-length is 5, wanted is 10000", ""),
        (with_queue(message_ttl=None), "x-message-ttl is not set, wanted is 86400000", ""),
        (with_queue(overflow="reject-publish"), "x-overflow is reject-publish, wanted is drop-head", ""),
        (with_queue(expires=60_000), "x-expires is 60000, wanted is not set", "everything in it when nobody uses it for so long"),
        (with_queue(queue_type="classic"), "x-queue-type is classic, wanted is quorum", ""),
        (with_queue(policy={"max-length": 7}), "x-max-length is 7, wanted is 10000", ""),
        (with_queue("kaniko-jobs.dlq", overflow=None), "x-overflow is drop-head, wanted is reject-publish", "the oldest dead letters, when it is full"),
        (with_queue("kaniko-jobs.dlq", message_ttl=1000), "x-message-ttl is 1000, wanted is not set", "every dead letter, after that time"),
        (with_queue("kaniko-jobs.dlq", delivery_limit=20), "x-delivery-limit is 20, wanted is 1000000000", "dead letters that were looked at so often"),
    ],
)  # fmt: skip
def test_an_argument_that_differs(there: Found, problem: str, loses: str) -> None:
    """And which messages are lost by it."""
    assert [(one[1], one[2]) for one in said(there)] == [(problem, loses)]


def test_a_policy_does_as_well() -> None:
    """The way out that we name must satisfy us."""
    assert said(with_queue(max_length=None, policy={"max-length": 10_000})) == []
    assert said(with_queue(overflow=None)) == []  # RabbitMQ's own default


def test_ways_out() -> None:
    """A policy can add what is not set; what is set needs another queue."""
    (difference,) = Report(WANT, with_queue(max_length=None)).differences
    assert difference.way_out == (
        "a policy can add it: rabbitmqctl set_policy --apply-to queues NAME '^kaniko-jobs$' '{\"max-length\": 10000}'"
    )
    (difference,) = Report(WANT, with_queue(max_length=5)).differences
    assert "declare one of another name" in difference.way_out
    assert "shovel" in difference.way_out


def test_exchanges_and_bindings() -> None:
    """A dead-letter exchange that is bound to nothing loses what it should keep."""
    there = found()
    assert said(replace(there, exchanges={**there.exchanges, "cloud-events": "direct"})) == [
        ("exchange cloud-events", "is of type direct, wanted is topic", "messages whose routing key its type does not match")
    ]  # fmt: skip
    assert there.bindings is not None
    assert said(replace(there, bindings=there.bindings - {WANT.bindings[0]})) == [
        ("binding dlx → kaniko-jobs.dlq", "is missing", "what expires, overflows or is rejected: the broker drops it silently")
    ]  # fmt: skip
    assert said(replace(there, bindings=there.bindings - {Binding("cloud-events", "kaniko-jobs", TYPES[1])})) == [
        (f"binding cloud-events → kaniko-jobs by {TYPES[1]}", "is missing", f"events of type {TYPES[1]} that are published to cloud-events")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("keys", "covered"),
    [(["#"], 4), (["network.notifi.#"], 2), (["*.notifi.lambda.*.start", "lambda.*.start"], 3), (["lambda.*"], 0)],
)
def test_wider_bindings_do_as_well(keys: list[str], covered: int) -> None:
    """A topic's own wildcards."""
    wide = {Binding("cloud-events", "kaniko-jobs", key) for key in keys}
    there = replace(found(), bindings=frozenset({Binding("dlx", "kaniko-jobs.dlq", "any"), *wide}))
    assert len(said(there)) == 4 - covered


def test_what_cannot_be_seen_is_said() -> None:
    """It is no difference, and no agreement either."""
    there = replace(with_queue(), bindings=None)
    there = replace(there, queues={name: replace(one, policy=None) for name, one in there.queues.items()})
    report = Report(WANT, there)
    assert report.differences == []
    assert report.unseen == [
        "bindings: AMQP does not show them; set rabbitmq.managementUrl",
        "policies: AMQP does not show them; set rabbitmq.managementUrl",
    ]
