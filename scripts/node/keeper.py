"""The process that outlives whoever started the node, by the moment that it takes to leave nothing behind.

Its standard input is the lifeline: when the other end is closed, be it that the starter was killed, it ends the node
and removes its control groups and folders. One SIGTERM does the same. It also keeps the doors between the machine's
loopback and the node's own network.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import traceback
from dataclasses import replace
from pathlib import Path

from node import configuration, control_groups
from node.configuration import ENDED, OPEN, Layout
from node.network import NetworkNamespace, listening, open_door
from node.places import HTTPS, REGISTRY

LOOPBACK = "127.0.0.1"
UNSHARE = "unshare", "--mount", "--pid", "--net", "--ipc", "--fork", "--kill-child", "--mount-proc"
_POLL = 0.02


async def keep(layout: Layout, kubelet: socket.socket) -> None:
    """Until the lifeline is cut. ``kubelet`` waits for those who want to talk to the node's."""
    cut = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, cut.set)
    loop.add_reader(sys.stdin.fileno(), cut.set)  # nothing is ever written to it: readable means closed
    command = [*UNSHARE, sys.executable, "-m", "node.inside", layout.as_json()]
    with (layout.folder / "inside.log").open("wb") as log:
        inside = await asyncio.create_subprocess_exec(*command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        doors = await _open_doors(layout, inside.pid, kubelet)
        # When the node ends by itself, its starter finds out, and wants to read the logs.
        await cut.wait()
        for door in doors:
            door.close()
    finally:
        with contextlib.suppress(ProcessLookupError):
            inside.kill()
        await inside.wait()


async def _open_doors(layout: Layout, pid: int, kubelet: socket.socket) -> list[asyncio.Server]:
    """To the kubelet, whom the API server asks for logs, and to the registry; and from there to the API server."""
    network = NetworkNamespace(pid)
    while network.is_ours:  # noqa: ASYNC110 -- the kernel tells nobody
        await asyncio.sleep(_POLL)
    registry = listening(socket.socket, (LOOPBACK, 0))
    api = LOOPBACK, layout.api_port
    doors = [
        await open_door(kubelet, network.socket, (LOOPBACK, layout.kubelet_port)),
        await open_door(registry, network.socket, (REGISTRY, HTTPS)),
        await open_door(listening(network.socket, api), socket.socket, api),
    ]
    unfinished = layout.folder / "open.part"
    unfinished.write_text(json.dumps({"pid": pid, "registry_port": registry.getsockname()[1]}))
    unfinished.rename(layout.folder / OPEN)
    return doors


def main(layout: Layout, *folders: str) -> None:
    """Keep one node; ``folders`` go with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C in the terminal is for the starter, who then cuts the line
    control_groups.remove_orphans()
    name = control_groups.make(os.getpid())
    try:
        kubelet = listening(socket.socket, (LOOPBACK, 0))
        complete = replace(layout, cgroup=name, kubelet_port=kubelet.getsockname()[1])
        configuration.write_all(complete)
        asyncio.run(keep(complete, kubelet))
    except Exception:  # noqa: BLE001 -- whatever it is, the starter wants to read it
        traceback.print_exc()
        (layout.folder / ENDED).write_text("the keeper has failed")
        sys.stdin.read()
    finally:
        control_groups.remove(name)
        for folder in folders:
            shutil.rmtree(Path(folder), ignore_errors=True)


if __name__ == "__main__":
    main(Layout.from_json(sys.argv[1]), *sys.argv[2:])
