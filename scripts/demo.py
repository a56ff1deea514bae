"""`make run`: the service on the embedded cluster, 004's own example through its front door, and what became of it."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

START_TIMEOUT = 30.0
BUILD_TIMEOUT = 60.0
THIRD_PARTY = "0307ea43639b4616b044d190310a26bd"
PARSER = "0197ad6c10b973b2b854a0e652155b7e"


def example() -> dict[str, Any]:
    """The example event of seeds/004, with an id, a correlation id and a time of its own."""
    return {
        "specversion": "1.0",
        "id": str(uuid4()),
        "source": "network.notifi.kaniko-jobs",
        "subject": PARSER,
        "type": "network.notifi.lambda.job.start",
        "time": datetime.now(UTC).isoformat(),
        "data": {
            "third_party_id": THIRD_PARTY,
            "parser_id": PARSER,
            "correlation_id": str(uuid4()),
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
        "datacontenttype": "application/json",
    }


async def show_the_way(url: str) -> None:
    """Send the example and show the answer and the outcome; the service's own log shows the phases of the Job."""
    event = example()
    correlation_id = event["data"]["correlation_id"]
    async with httpx.AsyncClient(base_url=url) as client:
        await _ready(client)
        print(f"\n--- sending 004's example to {url}/\n{json.dumps(event, indent=2)}\n", flush=True)
        answer = await client.post("/", json=event, headers={"Content-Type": "application/cloudevents+json"})
        print(f"--- answer: {answer.status_code} {answer.text}\n", flush=True)
        document = await _outcome(client, correlation_id)
        print(f"--- GET /async-jobs/{correlation_id}\n{json.dumps(document, indent=2)}\n", flush=True)
        print("--- the embedded cluster plays the build: pending, running, complete\n", flush=True)


def say_what_next(url: str) -> None:
    """Two lines to try."""
    print(
        f"\n--- serving until Ctrl-C. In another terminal, try:\n"
        f".venv/bin/python tests/create-job-start-event.py --url {url} --count 20 --wait\n"
        f"curl -s {url}/async-jobs/stats\n",
        flush=True,
    )


async def _ready(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(START_TIMEOUT):
        while True:
            try:
                if (await client.get("/health/ready")).is_success:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.05)


async def _outcome(client: httpx.AsyncClient, correlation_id: str) -> Any:
    async with asyncio.timeout(BUILD_TIMEOUT):
        while True:
            document = (await client.get(f"/async-jobs/{correlation_id}")).json()
            if document.get("finished_at"):
                return document
            await asyncio.sleep(0.05)


def main() -> int:
    """The service's exit code."""
    port = os.environ.get("PORT", "8080")
    url = f"http://127.0.0.1:{port}"
    if _taken(int(port)):
        print(
            f"port {port} is in use, and the example is not for whoever that is; try: PORT=9090 make run",
            file=sys.stderr,
        )
        return 1
    command = [sys.executable, "-m", "builder", "serve", "--cluster", "memory", "--host", "127.0.0.1", "--port", port]
    service = subprocess.Popen(command, cwd=Path(__file__).parents[1])
    # Ctrl-C reaches the service as well, from the terminal: it drains, and we wait for it. SIGTERM is handed on.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: service.terminate())
    try:
        asyncio.run(_watch(service, url))
        return service.wait()
    finally:
        service.kill()


def _taken(port: int) -> bool:
    """True if somebody listens there already."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def _watch(service: subprocess.Popen[bytes], url: str) -> None:
    """Show the way, unless the service ends first (a port that is taken, or an early Ctrl-C)."""
    way = asyncio.create_task(show_the_way(url))
    end = asyncio.create_task(asyncio.to_thread(service.wait))
    await asyncio.wait({way, end}, return_when=asyncio.FIRST_COMPLETED)
    if way.done():
        await way
        await asyncio.wait({end}, timeout=5)  # the embedded cluster's build takes four seconds
        if service.poll() is None:
            say_what_next(url)
        return
    way.cancel()


if __name__ == "__main__":
    sys.exit(main())
