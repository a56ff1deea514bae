"""The example of 004 as printed, and the few ways in which these tests send it."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from builder.models import Event

EXAMPLE = Path(__file__).with_name("job_start_004.json")


@pytest.fixture
def example() -> dict[str, Any]:
    """004's example event, whole (Job Start Event Data), as a dict of the test's own."""
    event: dict[str, Any] = json.loads(EXAMPLE.read_bytes())
    return event


@pytest.fixture
def event(example: dict[str, Any]) -> Event:
    """004's example event as the parser must read it, however it is sent."""
    return Event(
        id="uuid",
        source="network.notifi.kaniko-jobs",
        type="network.notifi.lambda.job.start",
        subject="parser-id",
        time=datetime(2024, 1, 1, tzinfo=UTC),
        extensions={},
        data=json.dumps(example["data"], separators=(",", ":")).encode(),
    )
