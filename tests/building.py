"""What tests build their values from: 004's example, with whatever the test cares about changed."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from builder.models import BuildRequest, BuildType, Event, Source, SourceKind, Target
from builder.settings import Settings
from builder.settings_sources import validate

THIRD_PARTY = "0307ea43639b4616b044d190310a26bd"
PARSER = "0197ad6c10b973b2b854a0e652155b7e"
NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)

EXAMPLE: dict[str, Any] = {
    "specversion": "1.0",
    "id": "e-1",
    "source": "network.notifi.kaniko-jobs",
    "subject": "parser-id",
    "type": "network.notifi.lambda.job.start",
    "time": "2024-01-01T00:00:00Z",
    "datacontenttype": "application/json",
    "data": {
        "third_party_id": THIRD_PARTY,
        "parser_id": PARSER,
        "correlation_id": "c-1",
        "job_name": f"kaniko-job-{THIRD_PARTY}-{PARSER}",
        "parameters": {
            "priority": 1,
            "build_type": "container",
            "runtime": "nodejs18",
            "source_url": f"https://github.com/notifi/parsers/{PARSER}",
            "build_timeout": 1800,
            "environment": {"NODE_ENV": "production", "BUILD_MODE": "optimized"},
        },
        "priority": 1,
    },
}
"""The example event of 004, word for word but for its ids."""


def settings(**more: Any) -> Settings:
    """Settings for the embedded cluster; ``more`` are top-level keys in the file's spelling."""
    tree: dict[str, Any] = {"cluster": "memory", "kaniko": {"registry": "registry.example.com"}}
    return validate(tree | more)


def request(**changes: Any) -> BuildRequest:
    """A checked request."""
    return BuildRequest(
        event_id="e-1",
        event_source="network.notifi.kaniko-jobs",
        requested_at=NOON,
        target=Target("acme", "parser1"),
        correlation_id="c-1",
        job_name=None,
        priority=5,
        build_type=BuildType.CONTAINER,
        runtime=None,
        source=Source(SourceKind.GIT, "https://git.example.com/acme/parser1.git"),
        dockerfile=None,
        build_timeout=1800,
        environment={},
    )._replace(**changes)


def event(
    event_id: str = "e-1",
    target: tuple[str, str] = ("acme", "parser1"),
    time: datetime | None = NOON,
    data: Mapping[str, Any] | None = None,
    **parameters: Any,
) -> Event:
    """A valid job start event. ``data`` are further members beside the ids, ``parameters`` those of the build."""
    document = {
        "third_party_id": target[0],
        "parser_id": target[1],
        "parameters": {"source_url": "https://git.example.com/acme/parser1.git", **parameters},
        **({} if data is None else data),
    }
    return Event(
        id=event_id,
        source="network.notifi.kaniko-jobs",
        type="network.notifi.lambda.job.start",
        subject=None,
        time=time,
        extensions={},
        data=json.dumps(document).encode(),
    )
