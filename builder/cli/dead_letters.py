"""``dead-letters``: what it takes; ``letter_commands`` does it."""

import argparse
import asyncio
import re

from builder.cli.options import Parsers, add_amqp, add_output, new_parser

_NUMBER = re.compile(r"[1-9][0-9]{0,17}")
_IN_BROKER = re.compile(r"[0-9a-f]{12}")

EXAMPLE = "knative-lambda-builder dead-letters list --reason forbidden"


def add_parser(commands: Parsers) -> None:
    """Add the command and its four parts."""
    summary = "Look at the events that failed, and send them again."
    parser = new_parser(commands, "dead-letters", summary, EXAMPLE)
    parts = parser.add_subparsers(dest="part", required=True, metavar="PART")
    find = new_parser(parts, "list", "The dead letters, the newest first.", EXAMPLE)
    _add_filters(find)
    show = new_parser(parts, "show", "One dead letter.", "knative-lambda-builder dead-letters show 7 --body")
    show.add_argument("--body", action="store_true", help="with its data; values of environment stay hidden")
    replay = new_parser(
        parts,
        "replay",
        "Send dead letters again, under their own identity.",
        "knative-lambda-builder dead-letters replay --all --reason retries_exhausted",
    )
    replay.add_argument("--all", action="store_true", help="all that the filters want, the oldest first")
    _add_filters(replay)
    discard = new_parser(parts, "discard", "Forget a dead letter.", "knative-lambda-builder dead-letters discard 7")
    show.add_argument("id", type=_id, metavar="ID")
    discard.add_argument("id", type=_id, metavar="ID")
    replay.add_argument("id", type=_id, nargs="?", metavar="ID")
    for part in (find, show, replay, discard):
        part.add_argument("--url", help="the running service (default: the one on this host, else its journal's file)")
        part.add_argument(
            "--from",
            dest="place",
            choices=["service", "amqp"],
            default="service",
            help="amqp: the broker's queue of dead letters (default: %(default)s)",
        )
        add_amqp(part)
        add_output(part, "text", "json")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """1 if it did not work."""
    from builder.cli.letter_commands import execute  # noqa: PLC0415 -- the service must not pay for an HTTP client

    return asyncio.run(execute(parsed))


def _id(text: str) -> str:
    if not (_NUMBER.fullmatch(text) or _IN_BROKER.fullmatch(text)):
        msg = "must be the id of a dead letter, as the list shows it"
        raise argparse.ArgumentTypeError(msg)
    return text


def _add_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", help="such as invalid, forbidden, retries_exhausted")
    parser.add_argument("--type", help="the event's type")
    parser.add_argument("--third-party-id", metavar="ID")
    parser.add_argument("--since", metavar="TIME", help="failed at this time or later, such as 2024-01-01T00:00:00Z")
    parser.add_argument("--until", metavar="TIME", help="failed before this time")
