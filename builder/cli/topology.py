"""``topology``: the broker's exchanges, queues and bindings against what is wanted."""

import argparse
import asyncio
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from builder.cli.options import Parsers, add_amqp, add_output, amqp_settings, new_parser
from builder.settings import Settings

if TYPE_CHECKING:
    from builder.flow.topology_check import Report

EXAMPLE = "knative-lambda-builder topology check -o json"


def add_parser(commands: Parsers) -> None:
    """Add the command and its two parts."""
    parser = new_parser(
        commands, "topology", "Compare RabbitMQ with what is wanted, and make what is missing.", EXAMPLE
    )
    parts = parser.add_subparsers(dest="part", required=True, metavar="PART")
    example = "knative-lambda-builder topology declare --amqp amqp://guest:guest@localhost"
    check = new_parser(parts, "check", "Say what is not as wanted, and whether it loses messages.", EXAMPLE)
    declare = new_parser(parts, "declare", "Make what is missing. Safe to repeat; nothing is ever deleted.", example)
    for part in (check, declare):
        add_amqp(part)
        add_output(part, "text", "json")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """1 if anything is not as wanted."""
    return asyncio.run(_execute(parsed, amqp_settings(parsed)))


async def _execute(parsed: argparse.Namespace, settings: Settings) -> int:
    from builder.adapters.rabbitmq import topology  # noqa: PLC0415 -- the other commands must not pay for it
    from builder.adapters.rabbitmq.connection import connected  # noqa: PLC0415 -- as above

    made = []
    async with connected(settings.rabbitmq) as connection:
        if parsed.part == "declare":
            before, report = await topology.declare(settings.rabbitmq, connection)
            made = report.made_since(before)
        else:
            report = await topology.look(settings.rabbitmq, connection)
    differences = report.differences
    if parsed.output == "json":
        document = {
            "ok": not differences,
            "made": made,
            "differences": [asdict(one) for one in differences],
            "unseen": report.unseen,
        }
        print(json.dumps(document, indent=2))
    else:
        _print(report, made)
    return 1 if differences else 0


def _print(report: "Report", made: list[str]) -> None:
    for what in made:
        print(f"made {what}")
    for one in report.differences:
        print(f"{one.what}: {one.problem}")
        if one.loses:
            print(f"  loses: {one.loses}")
        print(f"  way out: {one.way_out}")
    for hidden in report.unseen:
        print(f"not seen: {hidden}")
    if not report.differences:
        print("as wanted" if not report.unseen else "as wanted, as far as it can be seen")
