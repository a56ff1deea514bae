"""The README's console blocks that need a RabbitMQ, each at a broker in the state that its mark names."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.broker_parts import Vhost
from tests.contract.harness import eventually
from tests.integration import shell
from tests.integration.service import ROOT, Service, clean_environ
from tests.unit.test_documents import Reader, blocks, steps

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]  # a busy machine takes its time

THERE = "amqp://guest:guest@localhost"
DLQ = "kaniko-jobs.dlq"


async def an_old_queue(vhost: Vhost, _folder: Path) -> None:
    """Somebody has made it before, and left one argument out."""
    arguments = vhost.manage("GET", "queues", "kaniko-jobs")["arguments"]
    del arguments["x-dead-letter-exchange"]
    vhost.manage("DELETE", "queues", "kaniko-jobs")
    vhost.manage("PUT", "queues", "kaniko-jobs", {"durable": True, "arguments": arguments})


async def as_declared(_vhost: Vhost, _folder: Path) -> None:
    """Nothing more."""


async def letters_of_both_kinds(vhost: Vhost, folder: Path) -> None:
    """The service has rejected one event; then it was away for too long."""
    publish = "publish", "--amqp", vhost.url
    journal = {"BUILDER_JOURNAL__PATH": str(folder / "journal.sqlite3"), "BUILDER_LOGGING__FORMAT": "json"}
    service = Service.spawn(folder / "log", "--cluster=memory", "--port=0", environ=vhost.environ | journal)
    try:
        await service.listening()
        assert (await shell.command(*publish, "--priority", "11")).returncode == 0
        await eventually(service.stats, lambda stats: stats["broker"]["dead_letters"] == {"invalid": 1})
    finally:
        await service.close()
    short = {"pattern": "^kaniko-jobs$", "definition": {"message-ttl": 1}, "apply-to": "queues"}
    vhost.manage("PUT", "policies", "short", short)
    assert (await shell.command(*publish, "--count", "12")).returncode == 0
    await eventually(lambda: vhost.messages(DLQ), lambda letters: len(letters) == 13, within=60)
    vhost.manage("DELETE", "policies", "short")


STATES: dict[str, Callable[[Vhost, Path], Awaitable[None]]] = {
    "a queue without a dead-letter exchange": an_old_queue,
    "as declared": as_declared,
    "one event is wrong, twelve have expired": letters_of_both_kinds,
}
BLOCKS = {
    block.mark.removeprefix("broker: "): block for block in blocks("README.md", "console") if "broker: " in block.mark
}


@pytest.mark.parametrize("state", STATES)
async def test_who_types_the_readme_sees_what_it_shows(vhost: Vhost, tmp_path: Path, state: str) -> None:
    """At a broker of their own, without its management API."""
    await vhost.declare()
    await STATES[state](vhost, tmp_path)
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    reader = Reader(tmp_path, "", clean_environ({"PATH": path, "BUILDER_RABBITMQ__URL": vhost.url}))
    block = BLOCKS[state]
    for command, expected in steps(block):
        output = await asyncio.to_thread(reader.sees, command.replace(THERE, vhost.url), expected)
        assert output is None, f"{block.place}: {command}\nprints\n{output}\nand not\n{expected.pattern}"


def test_every_block_is_typed() -> None:
    """One block for each state that is known here."""
    assert list(BLOCKS) == list(STATES)
