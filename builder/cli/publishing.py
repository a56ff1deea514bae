"""What ``publish`` does: send, follow, report."""

import argparse
import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

from tqdm import tqdm

from builder.adapters.http_publisher import HttpPublisher
from builder.cli.options import amqp_settings
from builder.events.outgoing import Outgoing, Sent, encode_binary, encode_structured, job_start_event
from builder.rabbitmq_settings import Rabbitmq

_NOT_HERE = "; it may be at another replica, or rejected: dead-letters list --from amqp"

WELL = frozenset({"created", "adopted", "superseded"})


class Publisher(Protocol):
    """One road for events."""

    def send_all(self, events: Iterable[Outgoing], patience: float) -> AsyncIterator[Sent]:
        """Send the events; yields in the order of the answers."""


async def publish(parsed: argparse.Namespace) -> int:
    """The exit code: 0 if all were accepted and, where they were followed, ended well."""
    broker = _broker(parsed)
    if broker is not None and parsed.mode == "binary":
        print("publish: --mode binary is for HTTP; to RabbitMQ events go in structured mode", file=sys.stderr)
        return 2
    show = parsed.output == "text"
    sent = []
    async with _publisher(parsed, broker) as publisher:
        async for one in publisher.send_all(_events(parsed, structured=broker is not None), parsed.timeout):
            sent.append(one)
            if show:
                print(_line(one))
    accepted = [one for one in sent if one.accepted]
    outcomes = await _follow(parsed, accepted, by_queue=broker is not None) if parsed.wait else []
    if show:
        for outcome in outcomes:
            print(_outcome_line(outcome))
    if show and (len(sent) > 1 or outcomes):
        print(_summary(sent, outcomes))
    if not show:
        print(json.dumps([_report(one, outcomes) for one in sent], indent=2))
    ended_well = all(outcome["status"] in WELL for outcome in outcomes)
    return 0 if len(accepted) == len(sent) and ended_well else 1


def _broker(parsed: argparse.Namespace) -> Rabbitmq | None:
    """The broker to publish to; None for HTTP. What was typed wins over what is set."""
    if parsed.amqp is None and parsed.url is not None:
        return None
    settings = amqp_settings(parsed).rabbitmq
    return settings if settings.urls else None


@asynccontextmanager
async def _publisher(parsed: argparse.Namespace, broker: Rabbitmq | None) -> AsyncIterator[Publisher]:
    if broker is None:
        async with HttpPublisher.open(_receiver(parsed)) as over_http:
            yield over_http
        return
    from builder.adapters.rabbitmq.publisher import AmqpPublisher  # noqa: PLC0415 -- only who has a broker pays for it

    async with AmqpPublisher.open(broker) as over_amqp:
        yield over_amqp


def _receiver(parsed: argparse.Namespace) -> str:
    return "http://localhost:8080" if parsed.url is None else str(parsed.url)


async def _follow(parsed: argparse.Namespace, accepted: list[Sent], *, by_queue: bool) -> list[dict[str, Any]]:
    """What became of each. Of one that no queue holds any more, and the builder does not know, it never will."""
    outcomes = []
    async with HttpPublisher.open(_receiver(parsed)) as builder:
        consumed = asyncio.create_task(builder.consumed() if by_queue else asyncio.sleep(0))
        waits = [builder.outcome(one.correlation_id, parsed.timeout, consumed.done) for one in accepted]
        with tqdm(total=len(waits), unit="event", file=sys.stderr, desc="outcomes", disable=None) as bar:
            for done in asyncio.as_completed(waits):
                outcome = await done
                if by_queue and outcome["status"] == "unknown":
                    outcome["message"] += _NOT_HERE
                outcomes.append(outcome)
                bar.update()
        consumed.cancel()
    return outcomes


def _events(parsed: argparse.Namespace, *, structured: bool) -> Iterator[Outgoing]:
    encode = encode_structured if structured or parsed.mode == "structured" else encode_binary
    for number in range(1, parsed.count + 1):
        parser_id = parsed.parser_id or "0197ad6c10b973b2b854a0e652155b7e"
        if parsed.count > 1:
            parser_id = f"{parser_id}-{number}"
        event = job_start_event(
            third_party_id=parsed.third_party_id,
            parser_id=parser_id,
            priority=parsed.priority,
            parameters={
                "build_type": parsed.build_type,
                "runtime": parsed.runtime,
                "source_url": parsed.source_url or f"https://github.com/notifi/parsers/{parser_id}",
                "build_timeout": parsed.build_timeout,
                "environment": _environment(parsed.env) or {"NODE_ENV": "production", "BUILD_MODE": "optimized"},
            },
        )
        headers, body = encode(event)
        correlation_id = str(event.get_extension("correlationid"))
        yield Outgoing(event.get_id(), correlation_id, event.get_type(), headers, body)


def _environment(entries: list[str]) -> dict[str, str]:
    return {name: value for name, _, value in (entry.partition("=") for entry in entries)}


def _line(sent: Sent) -> str:
    answer = "" if sent.answer is None else f" {json.dumps(sent.answer)}"
    return f"{sent.status}{answer} event={sent.event_id} correlation_id={sent.correlation_id}"


def _outcome_line(outcome: dict[str, Any]) -> str:
    words = [outcome["status"], f"correlation_id={outcome['correlation_id']}"]
    words += [f"{name}={outcome[name]}" for name in ("job_name", "image", "reason", "message") if outcome.get(name)]
    return " ".join(words)


def _summary(sent: list[Sent], outcomes: list[dict[str, Any]]) -> str:
    answers = Counter(str(one.status) for one in sent)
    ends = Counter(outcome["status"] for outcome in outcomes)
    parts = [
        ", ".join(f"{count} x {what}" for what, count in sorted(group.items())) for group in (answers, ends) if group
    ]
    return "sent: " + "; outcomes: ".join(parts)


def _report(sent: Sent, outcomes: list[dict[str, Any]]) -> dict[str, Any]:
    by_correlation = {outcome["correlation_id"]: outcome for outcome in outcomes}
    return {
        "event_id": sent.event_id,
        "correlation_id": sent.correlation_id,
        "status": sent.status,
        "answer": sent.answer,
        "outcome": by_correlation.get(sent.correlation_id),
    }
