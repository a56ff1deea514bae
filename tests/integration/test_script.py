"""``tests/create-job-start-event.py``: 004's publisher under the name that people know."""

import re
import socket
from contextlib import closing

import pytest

from tests import building
from tests.integration.namespace import Namespace
from tests.integration.service import Service, Services, run

pytestmark = pytest.mark.integration

SCRIPT = "tests/create-job-start-event.py"
DEFAULT_PORT = 8080
QUEUED = r'202 \{"status": "queued"\} event=[0-9a-f-]{36} correlation_id=[0-9a-f-]{36}'
JOB = r"kaniko-job-0307ea43639b46-0197ad6c10b973--[a-z2-7]{20}"
CREATED = (
    rf"created correlation_id=[0-9a-f-]{{36}} job_name={JOB} "
    rf"image=registry\.example\.com/knative-lambdas:{building.THIRD_PARTY}-{building.PARSER}(-\d)?--[a-z2-7]{{20}}"
)


async def receiver(namespace: Namespace, services: Services) -> tuple[Service, list[str]]:
    """A service where the script looks by itself, and no flags; or elsewhere, if the port is taken, and its ``--url``."""
    with closing(socket.socket()) as probe:
        free = probe.connect_ex(("localhost", DEFAULT_PORT)) != 0
    service = await services.start(namespace, f"--port={DEFAULT_PORT if free else 0}")
    return service, [] if free else [f"--url={service.url}"]


def unmatched(patterns: list[str], text: str) -> list[tuple[str, str]]:
    """The lines that are not as they should be, each with its pattern."""
    pairs = zip(patterns, text.splitlines(), strict=True)
    return [(pattern, line) for pattern, line in pairs if not re.fullmatch(pattern, line)]


async def test_without_arguments(namespace: Namespace, services: Services) -> None:
    """One event of 004's own example goes to the local service, and the answer is shown."""
    service, flags = await receiver(namespace, services)

    sent = await run(SCRIPT, *flags)

    assert (sent.returncode, sent.stderr) == (0, "")
    assert unmatched([QUEUED], sent.stdout) == []
    result = await service.ended(sent.stdout.split("correlation_id=")[1].strip())
    assert (result["status"], result["third_party_id"], result["parser_id"]) == (
        "created",
        building.THIRD_PARTY,
        building.PARSER,
    )
    (job,) = (await namespace.jobs()).values()
    assert "--build-arg=NODE_ENV=production" in job["spec"]["template"]["spec"]["containers"][0]["args"]


async def test_five_events_followed_to_their_outcomes(namespace: Namespace, services: Services) -> None:
    """``--count 5 --wait``: five targets, five answers, five outcomes, and a line that sums up."""
    service, flags = await receiver(namespace, services)

    sent = await run(SCRIPT, "--count=5", "--wait", *flags)

    assert (sent.returncode, sent.stderr) == (0, "")
    summary = "sent: 5 x 202; outcomes: 5 x created"
    assert unmatched([*[QUEUED] * 5, *[CREATED] * 5, re.escape(summary)], sent.stdout) == []
    assert (await service.stats())["outcomes"]["created"] == len(await namespace.jobs()) == 5


async def test_an_event_that_is_refused(namespace: Namespace, services: Services) -> None:
    """Exit code 1, and the service's own words about the field."""
    service = await services.start(namespace)

    sent = await run(SCRIPT, f"--url={service.url}", "--priority=11")

    assert sent.returncode == 1
    assert sent.stdout.startswith("400 ")
    assert "data.priority: must be a whole number from 1 (first) to 10" in sent.stdout
    assert await namespace.jobs() == {}


async def test_an_event_that_ends_badly(namespace: Namespace, services: Services) -> None:
    """Accepted is not built: ``--wait`` says why, and the exit code is 1."""
    service = await services.start(Namespace(namespace.plane, "no-such-namespace"))

    sent = await run(SCRIPT, f"--url={service.url}", "--wait")

    assert sent.returncode == 1
    _, outcome, summary = sent.stdout.splitlines()
    assert outcome.endswith(' reason=namespace_not_found message=namespaces "no-such-namespace" not found')
    assert summary == "sent: 1 x 202; outcomes: 1 x failed"


async def test_nobody_there() -> None:
    """Exit code 1 and one line that says how to name another address; no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"

    sent = await run(SCRIPT, f"--url={url}")

    assert (sent.returncode, sent.stdout) == (1, "")
    assert re.fullmatch(
        rf".*publish: no answer from {url}: All connection attempts failed "
        r"\(is the builder there\? say where with --url\)\n",
        sent.stderr,
    )
