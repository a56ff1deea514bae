"""`make node`: a real node, a registry, a Git server, a broker and the service, for a look by hand until Ctrl-C."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from broker import Broker
from child_programs import LOOPBACK, Program, ProgramError, free_port
from node.installation import REPOSITORY, install
from node.node import Node
from node.places import GIT_NAME
from node.repositories import commit

from builder.adapters.rabbitmq import topology
from builder.adapters.rabbitmq.connection import connected
from builder.rabbitmq_settings import Rabbitmq

ROOT = Path(__file__).parents[1]
NAMESPACE = "knative-lambda"
JOB = "kaniko-job-acme-hello"
_PATIENCE = 60.0
_LOOK = 0.5


@contextlib.contextmanager
def serving(environ: Mapping[str, str], log: Path) -> Iterator[tuple[str, Program]]:
    """The service as a process, and where it listens. At the end it may finish what it does."""
    port = free_port()
    flags = f"--host={LOOPBACK}", f"--port={port}", f"--namespace={NAMESPACE}"
    command = [sys.executable, "-m", "builder", "serve", *flags]
    with ThreadPoolExecutor(max_workers=1) as spawner:
        service = Program(command, log, spawner, os.environ | dict(environ))
        try:
            url = f"http://{LOOPBACK}:{port}"
            _wait_until_ready(url, service)
            yield url, service
        finally:
            service.signal(signal.SIGTERM)
            service.wait(_PATIENCE)


def _wait_until_ready(url: str, service: Program) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        service.check_alive()
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/health/ready", trust_env=False).is_success:
                return
        time.sleep(_LOOK)
    message = f"{service.name} is not ready; {service.log_tail()}"
    raise ProgramError(message)


async def declare(broker: Broker) -> None:
    """004's topology."""
    settings = Rabbitmq.model_validate({"url": broker.url, "managementUrl": broker.management_url})
    async with connected(settings) as connection:
        await topology.declare(settings, connection)


def say_what_to_try(node: Node, broker: Broker, url: str) -> None:
    """Three commands, to be copied as they are."""
    image = r"{.metadata.annotations.build\.notifi\.network/image}"
    print(
        f"""
In another terminal:

export KUBECONFIG={node.plane.kubeconfig} PATH={node.plane.binaries.kubectl.parent}:$PATH

# an event by RabbitMQ, and what became of it
.venv/bin/knative-lambda-builder publish --amqp {broker.url} --url {url} --wait \\
    --third-party-id acme --parser-id hello --source-url https://{GIT_NAME}/public/examples.git/hello

# its Job, until the image is pushed
kubectl wait -n {NAMESPACE} job/{JOB} --for=condition=Complete --timeout=2m
kubectl get -n {NAMESPACE} jobs,pods

# the image's manifest in the registry
image=$(kubectl get -n {NAMESPACE} job/{JOB} -o jsonpath='{image}')
curl -s --cacert {node.ca_file} -u {":".join(node.account)} \\
    -H 'Accept: application/vnd.oci.image.manifest.v1+json' \\
    {node.registry_url}/v2/{REPOSITORY}/manifests/${{image##*:}}

Ctrl-C ends it and removes everything.""",
        flush=True,
    )


def look_by_hand() -> None:
    """All of it, until KeyboardInterrupt."""
    print("starting a control plane, a node and a broker: half a minute at most", flush=True)
    with Node() as node, Broker() as broker:
        commit(node.repositories / "public/examples.git", ROOT / "examples")
        asyncio.run(declare(broker))
        folder = node.folder / "service"
        folder.mkdir()
        environ = install(node, folder, NAMESPACE, components=["buildkit"])
        environ |= {
            "BUILDER_JOURNAL__PATH": str(folder / "journal.sqlite3"),
            "BUILDER_RABBITMQ__URL": broker.url,
            "BUILDER_RABBITMQ__MANAGEMENT_URL": broker.management_url,
        }
        log = folder / "service.log"
        with serving(environ, log) as (url, service):
            print(f"the service is at {url}, its log is {log}")
            say_what_to_try(node, broker, url)
            while True:
                for part in (node, broker, service):
                    part.check_alive()
                time.sleep(_LOOK)


def main() -> int:
    """For a person."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    try:
        look_by_hand()
    except KeyboardInterrupt:
        print("\ngone", flush=True)
    except ProgramError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
