"""The node itself: it runs Pods, and when it ends nothing is left, however it ends."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from node import control_groups, stock
from node.images import Entry, Image
from node.node import Node

from tests.contract.harness import eventually
from tests.integration.service import PATIENCE, ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

STARTER = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
sys.path.insert(0, sys.argv[1])
from node.node import Node
with Node() as node:
    print(node.folder, node.plane.data, flush=True)
    time.sleep(600)
"""


def left_of(*folders: str) -> list[str]:
    """Folders, control groups and processes of a node."""
    commands = [_command(line) for line in Path("/proc").glob("[0-9]*/cmdline")]
    processes = [command for command in commands if any(folder in command for folder in folders)]
    return [folder for folder in folders if Path(folder).exists()] + sorted(control_groups.orphans()) + processes


def _command(line: Path) -> str:
    try:
        return line.read_text(errors="replace").replace("\0", " ")
    except OSError:  # it has just ended
        return ""


def machine() -> dict[str, str]:
    """What a kubelet would change on a machine."""
    places = (
        "vm/overcommit_memory",
        "kernel/panic",
        "kernel/panic_on_oops",
        "kernel/keys/root_maxkeys",
        "net/ipv4/ip_forward",
    )
    seen = {place: Path("/proc/sys", place).read_text() for place in places}
    seen["links"] = " ".join(sorted(link.name for link in Path("/sys/class/net").iterdir()))
    seen["folders"] = str(
        [Path(place).exists() for place in ("/var/lib/kubelet", "/var/log/containers", "/opt/containerd")]
    )
    return seen


def test_a_pod_runs_and_speaks(node: Node) -> None:
    """From the API server to a container and back: it knows the names of the node's own servers, and no others."""
    script = "nslookup git.example.com; nslookup github.com; true"
    command = ["run", "hello", f"--image={stock.BASE_IMAGE}", "--restart=Never", "--attach", "--quiet", "--rm", "--"]
    said = node.plane.kubectl(*command, "sh", "-c", script)
    assert "Address: 10.244.0.3" in said
    assert "can't find github.com: NXDOMAIN" in said


async def test_pushes_of_one_image_at_once(node: Node) -> None:
    """Two builds of one source push the same image at the same time: a registry that refuses one fails its build."""
    image = Image("twice", [Entry("/hello", data=b"hello")])
    tags = [f"t{number}" for number in range(40)]
    for _ in range(5):
        async with asyncio.TaskGroup() as group:
            for tag in tags:
                group.create_task(asyncio.to_thread(node.registry.push, image, "team/twice", tag))
    assert node.registry.tags("team/twice") == sorted(tags)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
async def test_nothing_is_left(node: Node, number: signal.Signals) -> None:
    """A second node beside the first; its starter is stopped, or killed without a word."""
    before = machine()
    starter = await asyncio.create_subprocess_exec(
        sys.executable, "-c", STARTER, str(ROOT / "scripts"), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert starter.stdout is not None
    folders = tuple((await starter.stdout.readline()).decode().split())
    assert len(folders) == 2
    assert left_of(*folders) != []
    assert machine() == before

    starter.send_signal(number)
    await starter.wait()

    async def left() -> list[str]:
        return left_of(*folders)

    await eventually(left, lambda found: not found, PATIENCE)
    assert machine() == before
    node.check_alive()
