"""``render``: an event in, its Job out. Nothing is contacted, nothing is created."""

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import yaml

from builder.cli.options import Parsers, add_output, add_settings, new_parser, settings_of
from builder.errors import EventRejected
from builder.events.parsing import STRUCTURED_TYPE, Rejected, parse_http
from builder.events.request import build_request
from builder.events.routing import route
from builder.jobs.manifest import build_job
from builder.models import BuildRequest, Event
from builder.settings import Settings


def add_parser(commands: Parsers) -> None:
    """Add the command."""
    parser = new_parser(
        commands,
        "render",
        "Print the Job that an event would become: a dry run.",
        "knative-lambda-builder render event.json | kubectl create --dry-run=server -f -",
    )
    parser.add_argument(
        "event", nargs="?", default="-", metavar="FILE", help="a CloudEvent as JSON; - or nothing: stdin"
    )
    add_settings(parser)
    add_output(parser, "yaml", "json")
    parser.set_defaults(run=run)


def run(parsed: argparse.Namespace) -> int:
    """1 if the event would be rejected."""
    # No cluster is asked, so none needs to be set up.
    settings = settings_of(parsed, {"cluster": "memory"})
    try:
        body = sys.stdin.buffer.read() if parsed.event == "-" else Path(parsed.event).read_bytes()
    except OSError as exc:
        print(f"render: cannot read {parsed.event}: {exc.strerror}", file=sys.stderr)
        return 2
    event = parse_http(STRUCTURED_TYPE, (), body).items[0]
    try:
        request = _request(event, settings)
    except EventRejected as exc:
        print("render: the event would be rejected:", *exc.problems, sep="\n  ", file=sys.stderr)
        return 1
    job = build_job(request, settings)
    if settings.kubernetes.namespace is not None:
        job["metadata"]["namespace"] = settings.kubernetes.namespace
    print(json.dumps(job, indent=2) if parsed.output == "json" else yaml.safe_dump(job, sort_keys=False), end="")
    return 0


def _request(event: Event | Rejected, settings: Settings) -> BuildRequest:
    if isinstance(event, Rejected):
        raise EventRejected(event.problems, event.status)
    route(event)
    return build_request(event, datetime.now(UTC), settings.build, settings.intake)
