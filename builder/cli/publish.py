"""``publish``: what it takes; ``publishing`` does it."""

import argparse
import asyncio

from builder.cli.options import Parsers, add_amqp, add_output, new_parser

EXAMPLE = "knative-lambda-builder publish --url http://localhost:8080 --count 10 --wait"
SUMMARY = "Send job start events over HTTP or to RabbitMQ, and follow them to their outcomes."


def add_parser(commands: Parsers) -> None:
    """Add the command."""
    parser = new_parser(commands, "publish", SUMMARY, EXAMPLE)
    add_arguments(parser)
    parser.set_defaults(run=run)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes; without any, one event of 004's own example goes to the broker that is set, if one is.

    Where none is, it goes to the local service.
    """
    add_amqp(parser)
    parser.add_argument(
        "--url",
        help="the receiver, and with --amqp whom --wait asks (default: http://localhost:8080; given without --amqp: "
        "over HTTP even if rabbitmq.url is set)",
    )
    parser.add_argument("--count", type=_positive, default=1, help="how many events (default: %(default)s)")
    parser.add_argument(
        "--mode", choices=["binary", "structured"], help="default: binary over HTTP, structured to RabbitMQ"
    )
    parser.add_argument("--third-party-id", default="0307ea43639b4616b044d190310a26bd", metavar="ID")
    parser.add_argument(
        "--parser-id", metavar="ID", help="default: 004's; with --count its number is added, for targets of their own"
    )
    parser.add_argument("--priority", type=int, default=1, help="1 (first) to 10 (default: %(default)s)")
    parser.add_argument("--build-type", default="container", help="container or function (default: %(default)s)")
    parser.add_argument("--runtime", default="nodejs18", help="default: %(default)s")
    parser.add_argument("--source-url", metavar="URL", help="default: the parser's in 004's repository")
    parser.add_argument("--build-timeout", type=int, default=1800, metavar="SECONDS", help="default: %(default)s")
    parser.add_argument(
        "--env", action="append", default=[], metavar="NAME=VALUE", help="for the build; may be repeated"
    )
    parser.add_argument("--wait", action="store_true", help="follow each event to its outcome")
    parser.add_argument(
        "--timeout",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="how long to try without any success, and to follow (default: %(default)s)",
    )
    add_output(parser, "text", "json")


def run(parsed: argparse.Namespace) -> int:
    """1 if any event was not accepted, or with ``--wait`` did not end well."""
    from builder.cli.publishing import publish  # noqa: PLC0415 -- the service must not pay for an HTTP client

    return asyncio.run(publish(parsed))


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        msg = "must be a whole number, at least 1"
        raise argparse.ArgumentTypeError(msg)
    return int(text)
