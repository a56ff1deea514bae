"""`make run`: the service on the embedded cluster, 004's own example through its front door, and what became of it.

With AMQP=1 there is a throw-away RabbitMQ as well, and the example goes through its queue `kaniko-jobs`, as in 004.
"""

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
from broker import Broker
from child_programs import ProgramError

from builder.adapters.rabbitmq import topology
from builder.adapters.rabbitmq.connection import connected
from builder.adapters.rabbitmq.publisher import AmqpPublisher
from builder.events.outgoing import Outgoing
from builder.rabbitmq_settings import Rabbitmq

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


async def show_the_way(url: str, broker: Broker | None) -> None:
    """Send the example and show the answer and the outcome; the service's own log shows the phases of the Job."""
    event = example()
    correlation_id = event["data"]["correlation_id"]
    async with httpx.AsyncClient(base_url=url) as client:
        await _ready(client)
        if broker is None:
            print(f"\n--- sending 004's example to {url}/\n{json.dumps(event, indent=2)}\n", flush=True)
            answer = await client.post("/", json=event, headers={"Content-Type": "application/cloudevents+json"})
            print(f"--- answer: {answer.status_code} {answer.text}\n", flush=True)
        else:
            print(f"\n--- publishing 004's example to {broker.url}\n{json.dumps(event, indent=2)}\n", flush=True)
            print(f"--- answer: {await _publish(event, broker)}\n", flush=True)
        document = await _outcome(client, correlation_id)
        print(f"--- GET /async-jobs/{correlation_id}\n{json.dumps(document, indent=2)}\n", flush=True)
        print("--- the embedded cluster plays the build: pending, running, complete\n", flush=True)


async def _publish(event: dict[str, Any], broker: Broker) -> int | str:
    body, headers = json.dumps(event).encode(), {"content-type": "application/cloudevents+json"}
    async with AmqpPublisher.open(_settings(broker)) as publisher:
        outgoing = Outgoing(event["id"], event["data"]["correlation_id"], event["type"], headers, body)
        return (await publisher.send(outgoing, START_TIMEOUT)).status


async def _declare(broker: Broker) -> None:
    async with connected(_settings(broker)) as connection:
        await topology.declare(_settings(broker), connection)


def _settings(broker: Broker) -> Rabbitmq:
    return Rabbitmq.model_validate({"url": broker.url, "managementUrl": broker.management_url})


def say_what_next(url: str, broker: Broker | None) -> None:
    """A few lines to try."""
    road = f"--url {url}" if broker is None else f"--amqp {broker.url} --url {url}"
    print(
        f"\n--- serving until Ctrl-C. In another terminal, try:\n"
        f".venv/bin/python tests/create-job-start-event.py {road} --count 20 --wait\n"
        f"curl -s {url}/async-jobs/stats",
        flush=True,
    )
    if broker is not None:
        print(
            f".venv/bin/knative-lambda-builder topology check --amqp {broker.url}\n"
            f".venv/bin/knative-lambda-builder dead-letters list --from amqp --amqp {broker.url}",
            flush=True,
        )
    print(flush=True)


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
            if document.get("finished_at"):  # a 404 while a message is on its way has none either
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
    if not os.environ.get("AMQP"):
        return _serve(url, port, None)
    try:
        with Broker() as broker:
            asyncio.run(_declare(broker))
            return _serve(url, port, broker)
    except ProgramError as error:
        print(error, file=sys.stderr)
        return 1


def _serve(url: str, port: str, broker: Broker | None) -> int:
    command = [sys.executable, "-m", "builder", "serve", "--cluster", "memory", "--host", "127.0.0.1", "--port", port]
    environ = dict(os.environ)
    if broker is not None:
        environ |= {"BUILDER_RABBITMQ__URL": broker.url, "BUILDER_RABBITMQ__MANAGEMENT_URL": broker.management_url}
    service = subprocess.Popen(command, cwd=Path(__file__).parents[1], env=environ)
    # Ctrl-C reaches the service as well, from the terminal: it drains, and we wait for it. SIGTERM is handed on.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: service.terminate())
    try:
        asyncio.run(_watch(service, url, broker))
        return service.wait()
    finally:
        service.kill()


def _taken(port: int) -> bool:
    """True if somebody listens there already."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def _watch(service: subprocess.Popen[bytes], url: str, broker: Broker | None) -> None:
    """Show the way, unless the service ends first (a port that is taken, or an early Ctrl-C)."""
    way = asyncio.create_task(show_the_way(url, broker))
    end = asyncio.create_task(asyncio.to_thread(service.wait))
    await asyncio.wait({way, end}, return_when=asyncio.FIRST_COMPLETED)
    if way.done():
        await way
        await asyncio.wait({end}, timeout=5)  # the embedded cluster's build takes four seconds
        if service.poll() is None:
            say_what_next(url, broker)
        return
    way.cancel()


if __name__ == "__main__":
    sys.exit(main())
