"""The same requests through the real port, with the journal on disk: no 5xx, no wrong Job, and memory stays flat."""

import random
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.fuzz.amount import BODIES, SEED, numbers, replayable, resident
from tests.fuzz.judge import judge
from tests.fuzz.mutations import STRINGS, case
from tests.fuzz.port import Connection, Service, as_bytes, sendable

REQUESTS = BODIES // 50
MEMORY = 4 * 2**20
"""What the second half may leave behind. The first is there to fill what has a bound: 20 MiB, by 10,000 requests."""

PATHS = ["/async-jobs/{}", "/async-jobs/dead-letters/{}", "/async-jobs/dead-letters?{}", "/{}", "/events?{}"]
QUERIES = ["limit={}", "before={}", "since={}", "until={}", "reason={}", "replayed={}", "{}={}"]
METHODS = ["GET", "GET", "GET", "DELETE", "OPTIONS", "PUT", "X"]


def stray(draw: random.Random) -> bytes:
    """A request for something that people read, or for nothing at all."""
    text = quote(draw.choice(STRINGS).encode("utf-8", "replace"), safe="")
    query = draw.choice(QUERIES).replace("{}", text)
    path = draw.choice(PATHS).format(query if draw.random() < 0.7 else text)
    return f"{draw.choice(METHODS)} {path} HTTP/1.1\r\nHost: builder\r\n\r\n".encode()


@pytest.mark.timeout(3600)
def test_through_the_port(tmp_path: Path) -> None:
    """Accepted is what may be accepted, all of it; and of that, each event has the Job that it asked for."""
    before = 0
    names: dict[tuple[str, str], str] = {}
    with Service.started(tmp_path) as service:
        connection = Connection(service.address)
        for count, number in enumerate(numbers(REQUESTS)):
            if count == REQUESTS // 2:
                service.settled()
                before = resident(service.process.pid)
            draw = random.Random(f"{SEED} port {number}")  # noqa: S311 -- to be repeated, not to be secret
            with replayable(number):
                made = sendable(case(SEED, number))
                verdict = judge(made)
                status, body = connection.send(as_bytes(made, draw))
                assert status == 202 if not verdict.rejected else status in {400, 413, 415}, (status, body, made)
                assert connection.send(stray(draw))[0] < 500
            for identity, job in verdict.jobs.items():
                names.setdefault(identity, job["metadata"]["name"])
        connection.close()
        stats = service.settled()
        after = resident(service.process.pid)
    created = {(line["event_source"], line["event_id"]): line["job"] for line in service.logged("job_created")}
    ended = {(line["event_source"], line["event_id"]) for line in service.logged("event_superseded")} | created.keys()
    assert ended == names.keys()
    assert {identity: names[identity] for identity in created} == created
    assert sum(stats["failures"].values()) == 0
    assert not service.logged("request_crashed")
    print(f"{len(names)} events, {len(created)} Jobs, {(after - before) / 2**20:.1f} MiB more")  # noqa: T201
    assert after - before < MEMORY
