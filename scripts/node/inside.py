"""The first process in the node's namespaces: when it ends, the kernel kills every other one, containers too.

It has its own view of a few folders in which Kubernetes' programs insist on writing, starts the programs, buries the
dead, and ends when a program does.
"""

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from node.configuration import ENDED, OWN_FILES, RUNC, SYSCTLS, Layout
from node.places import ADDRESSES, BRIDGE, BRIDGE_ADDRESS, BUILDKITD, GATEWAY, NODE

_POLL = 0.05
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def see_own_folders(folder: Path) -> None:
    """Mounts that nobody else sees. What is below /run, /var/lib and /var/log is needed by nothing here."""
    _run("mount", "--make-rshared", "/")
    for place in ("/run", "/var/lib", "/var/log"):
        if folder.is_relative_to(place):
            message = f"the node's folder {folder} must not be below {place}: set TMPDIR to another place"
            raise SystemExit(message)
        _run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", place)
    for name, place in OWN_FILES.items():
        _run("mount", "--bind", str(folder / name), place)
    for name in SYSCTLS:
        _run("mount", "--bind", str(folder / "sysctl" / name), f"/proc/sys/{name}")


def make_network() -> None:
    """A bridge with an address for each server; Pods come to it by themselves."""
    _run("ip", "link", "set", "lo", "up")
    # Otherwise it takes the lowest address of its ports, and changes it as Pods come and go, which Pods learn late.
    _run("ip", "link", "add", BRIDGE, "address", BRIDGE_ADDRESS, "type", "bridge")
    for address in ADDRESSES:
        _run("ip", "address", "add", f"{address}/24", "dev", BRIDGE)
    _run("ip", "link", "set", BRIDGE, "up")


def commands(layout: Layout) -> dict[str, list[str]]:
    """Name → command line of each program."""
    folder = layout.folder
    python = sys.executable, "-m"
    certificate = str(folder / "server.crt"), str(folder / "server.key")
    return {
        "names": [*python, "node.name_server"],
        "git": [*python, "node.git_server", str(folder / "git"), *certificate],
        "registry": [str(layout.programs / "registry"), "serve", str(folder / "registry.json")],
        "containerd": ["containerd", "--config", str(folder / "containerd.toml")],
        "kubelet": [
            str(layout.programs / "kubelet"),
            f"--config={folder}/kubelet.json",
            f"--kubeconfig={folder}/kubelet.kubeconfig",
            f"--root-dir={folder}/kubelet",
            f"--cert-dir={folder}/kubelet-certificates",
            f"--hostname-override={NODE}",
            f"--node-ip={GATEWAY}",
        ],
        "buildkitd": [
            str(layout.programs / "buildkitd"),
            f"--config={folder}/buildkitd.toml",
            f"--root={folder}/buildkit",
            f"--addr=tcp://{GATEWAY}:{BUILDKITD}",
            "--oci-worker-net=host",
            f"--oci-worker-binary={RUNC}",
        ],
    }


def start(layout: Layout) -> dict[int, str]:
    """Process id → name of every program."""
    scripts = str(Path(__file__).parents[1])
    environ = {
        "PATH": f"{layout.programs}:{SYSTEM_PATH}",
        "PYTHONPATH": scripts,
        "TMPDIR": str(layout.folder / "tmp"),
        "HOME": str(layout.folder),
        "GIT_ACCOUNT": os.environ["GIT_ACCOUNT"],
    }
    running = {}
    for name, command in commands(layout).items():
        if name == "kubelet":
            _wait_for(layout.socket)  # without it, a kubelet ends at once
        with (layout.folder / f"{name}.log").open("wb") as log:
            child = subprocess.Popen(
                command, cwd=layout.folder, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        running[child.pid] = name
    return running


def bury_until_one_ends(running: dict[int, str]) -> str:
    """Wait for the orphans of the whole namespace; the name of the program that ended."""
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid in running:
            return f"{running[pid]} ended with {os.waitstatus_to_exitcode(status)}"


def _wait_for(path: Path) -> None:
    """Until somebody listens there; whoever started us has the patience."""
    while True:
        with socket.socket(socket.AF_UNIX) as probe, contextlib.suppress(OSError):
            probe.connect(str(path))
            return
        time.sleep(_POLL)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def main(layout: Layout) -> None:
    """Become the node."""
    see_own_folders(layout.folder)
    make_network()
    ended = bury_until_one_ends(start(layout))
    (layout.folder / ENDED).write_text(ended)
    raise SystemExit(ended)


if __name__ == "__main__":
    main(Layout.from_json(sys.argv[1]))
