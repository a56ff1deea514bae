"""A real node of a real cluster on this machine: `with Node() as node: ...`; when it ends, nothing of it is left.

The control plane is that of `control_plane`. Kubelet, containerd, a registry, a Git server and a name server live in
namespaces of their own (mounts, processes, network), below control groups of their own. `scripts/setup-node` and
`scripts/build-node` see to the programs.
"""

import contextlib
import ctypes
import json
import os
import secrets
import shutil
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from certificates import make_authority, make_certificate
from child_programs import LOOPBACK, Program, ProgramError, Standing
from control_plane import Binaries, ControlPlane, Extras, Missing, find_binaries

from node import control_groups, stock
from node.configuration import CNI_PLUGINS, ENDED, OPEN, OWN_FILES, RUNC, Layout
from node.git_server import BACKEND
from node.network import NetworkNamespace
from node.places import GIT_NAME, NODE, REGISTRY_NAME
from node.registry import Registry

SCRIPTS = Path(__file__).parents[1]
PROGRAMS = ("containerd", "ctr", "unshare", "mount", "ip", "openssl", "git", "newuidmap", "newgidmap")
FILES = (
    Path(RUNC),
    Path(CNI_PLUGINS) / "bridge",
    Path(CNI_PLUGINS) / "host-local",
    BACKEND,
    stock.BUSYBOX,
    *map(Path, OWN_FILES.values()),
)
BUILT = (
    "kubelet",
    "kube-scheduler",
    "buildkitd",
    "buildctl",
    "rootlesskit",
    "buildctl-daemonless.sh",
    "pause",
    "registry",
)
MIRROR = "mirror/library/busybox"
"""Where the registry has the base image of sources: it is a mirror of docker.io below ``mirror``."""
_POLL = 0.05
_TAIL = 8
_BCRYPT_ALPHABET = string.ascii_letters + string.digits


class Account(NamedTuple):
    """Of the registry and of the Git server."""

    name: str
    password: str


def programs_folder() -> Path:
    """Where `build-node` puts what it builds."""
    shown = subprocess.run([SCRIPTS / "build-node", "--print"], check=True, capture_output=True, text=True)
    return Path(shown.stdout.strip())


def missing() -> str | None:
    """Why there can be no node here, and what to do about it; None if there can."""
    if os.geteuid() != 0:
        return "a node needs root: it makes namespaces, mounts and control groups"
    if (problem := control_groups.problem()) is not None:
        return problem
    absent = [name for name in PROGRAMS if shutil.which(name) is None] + [str(one) for one in FILES if not one.exists()]
    if absent:
        return f"missing: {', '.join(absent)}; to get them, run {SCRIPTS / 'setup-node'}"
    folder = programs_folder()
    if unbuilt := [name for name in BUILT if not (folder / name).exists()]:
        return f"missing in {folder}: {', '.join(unbuilt)}; to get them, run {SCRIPTS / 'build-node'}"
    binaries = find_binaries()
    if isinstance(binaries, Missing):
        return binaries.reason
    return None if binaries.kube_controller_manager else "missing: kube-controller-manager; unset KUBEBUILDER_ASSETS"


class Node(Standing):
    """The whole cluster as a context manager.

    While it is open: `plane` (the control plane: `plane.kubectl`, `plane.kubeconfig`), `registry` (with `registry_url`
    and `ca_file`, as seen from this machine), `account` (of registry and Git), `repositories` (a folder: the bare
    repositories in it are at https://git.example.com/, those below `public` without the account). Several may be open
    side by side.
    """

    def __init__(self, *, start_timeout: float = 120) -> None:
        """Start nothing yet; ProgramError says what is missing."""
        if (why := missing()) is not None:
            raise ProgramError(why)
        binaries = find_binaries()
        assert isinstance(binaries, Binaries)  # noqa: S101 -- not missing
        self._start_timeout = start_timeout
        self.folder = Path(tempfile.mkdtemp(prefix="node-"))
        self.repositories = self.folder / "git"
        self.ca_file = self.folder / "ca.crt"
        self.account = Account("builder", secrets.token_urlsafe(12))
        self.registry_url = ""
        self._registry: Registry | None = None
        self._kubelet_token = secrets.token_urlsafe(24)
        self.plane = ControlPlane(binaries, extras=self._extras())
        self._keeper: subprocess.Popen[bytes] | None = None
        self._scheduler: Program | None = None
        # Linux takes the death of the *thread* that forked for the death of the parent, see control_plane.py.
        self._spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="node")

    def _stand_up(self) -> None:
        self._write_secrets()
        self.plane.__enter__()
        self._start_keeper()
        self._start_scheduler()
        self._wait_until(self._has_containerd, "containerd")
        self.import_images(*stock.write_all(programs_folder(), self.folder))
        self._wait_until(self._is_ready, "the kubelet")
        self.registry.push(stock.base(), MIRROR, "1")

    def close(self) -> None:
        """End it; again is harmless. The keeper tidies up, also behind a starter that was killed."""
        if self._keeper is not None:
            assert self._keeper.stdin is not None  # noqa: S101 -- it was asked for
            self._keeper.stdin.close()
            self._keeper.wait(self._start_timeout)
            self._keeper = None
        if self._scheduler is not None:
            self._scheduler.kill()
            self._scheduler = None
        if self._registry is not None:
            self._registry.close()
            self._registry = None
        self.plane.close()
        self._spawner.shutdown()
        shutil.rmtree(self.folder, ignore_errors=True)

    def check_alive(self) -> None:
        """Raise ProgramError when a part of it has ended that should be running."""
        self.plane.check_alive()
        if self._scheduler is not None:
            self._scheduler.check_alive()
        if self._keeper is None or self._keeper.poll() is not None or (self.folder / ENDED).exists():
            raise ProgramError("the node has ended: " + self._last_words())

    def import_images(self, *archives: Path) -> None:
        """Give the node images, so that it has not to fetch them."""
        for archive in archives:
            self._ctr("images", "import", str(archive))

    @property
    def registry(self) -> Registry:
        """As its admin sees it."""
        assert self._registry is not None  # noqa: S101 -- a caller's mistake
        return self._registry

    def processes(self) -> dict[str, list[str]]:
        """What runs in its Pods: the Pod's uid → the names of its processes."""
        assert self._keeper is not None  # noqa: S101 -- a caller's mistake
        return control_groups.processes(f"{control_groups.PREFIX}{self._keeper.pid}")

    def network(self) -> NetworkNamespace:
        """Where the Pods are."""
        return NetworkNamespace(self._opened()["pid"])

    def _ctr(self, *args: str) -> str:
        command = ["ctr", "--address", str(self.folder / "c.sock"), "--namespace", "k8s.io", *args]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            message = f"ctr {' '.join(args)}: {done.stderr.strip()}"
            raise ProgramError(message)
        return done.stdout

    def _extras(self) -> Extras:
        """What a control plane with a node has more than one without."""
        return Extras(
            users=[f"{self._kubelet_token},system:node:{NODE},{NODE},system:nodes"],
            apiserver=[
                "--authorization-mode=Node",
                "--enable-admission-plugins=NodeRestriction",
                f"--kubelet-client-certificate={self.folder}/client.crt",
                f"--kubelet-client-key={self.folder}/client.key",
                "--kubelet-preferred-address-types=Hostname",
            ],
            controllers=["node-lifecycle-controller", "taint-eviction-controller", "pod-garbage-collector-controller"],
        )

    def _write_secrets(self) -> None:
        make_authority(self.folder)
        names = [f"DNS:{REGISTRY_NAME}", f"DNS:{GIT_NAME}", "DNS:localhost", f"IP:{LOOPBACK}"]
        make_certificate(self.folder, "server", "serverAuth", names)
        make_certificate(self.folder, "client", "clientAuth", [], subject="/O=system:masters/CN=kube-apiserver")
        (self.folder / "htpasswd").write_text(f"{self.account.name}:{_bcrypt(self.account.password)}\n")
        for name in ("git/public", "registry", "tmp"):
            (self.folder / name).mkdir(parents=True)

    def _start_keeper(self) -> None:
        layout = Layout(folder=self.folder, programs=programs_folder(), api_port=self.plane.port)
        config = json.loads(self.plane.kubeconfig.read_text())
        config["users"][0]["user"] = {"token": self._kubelet_token}
        (self.folder / "kubelet.kubeconfig").write_text(json.dumps(config))
        environ = os.environ | {
            "PYTHONPATH": str(SCRIPTS),
            "GIT_ACCOUNT": f"{self.account.name}:{self.account.password}",
        }
        command = [sys.executable, "-m", "node.keeper", layout.as_json(), str(self.folder), str(self.plane.data)]
        with (self.folder / "keeper.log").open("wb") as log:
            # Not a child that dies with its parent: it has to outlive it for a moment.
            self._keeper = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environ,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._wait_until((self.folder / OPEN).exists, "the node's network")
        self.registry_url = f"https://localhost:{self._opened()['registry_port']}"
        self._registry = Registry(self.registry_url, self.ca_file, self.account)

    def _opened(self) -> dict[str, int]:
        opened: dict[str, int] = json.loads((self.folder / OPEN).read_text())
        return opened

    def _start_scheduler(self) -> None:
        command = [
            str(programs_folder() / "kube-scheduler"),
            f"--kubeconfig={self.plane.kubeconfig}",
            f"--authentication-kubeconfig={self.plane.kubeconfig}",
            f"--authorization-kubeconfig={self.plane.kubeconfig}",
            "--leader-elect=false",
            "--secure-port=0",
        ]
        self._scheduler = Program(command, self.folder / "scheduler.log", self._spawner)

    def _has_containerd(self) -> bool:
        with contextlib.suppress(ProgramError):
            self._ctr("version")
            return True
        return False

    def _is_ready(self) -> bool:
        """True once the scheduler may use it: with a kubelet that is well, and no taint left."""
        nodes = json.loads(self.plane.kubectl("get", "nodes", "-o=json"))["items"]
        well = {"type": "Ready", "status": "True"}
        return any(
            not node["spec"].get("taints") and any(well.items() <= one.items() for one in node["status"]["conditions"])
            for node in nodes
        )

    def _wait_until(self, is_done: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + self._start_timeout
        while not is_done():
            self.check_alive()
            if time.monotonic() > deadline:
                message = f"{what} is not ready after {self._start_timeout:g} s; {self._last_words()}"
                raise ProgramError(message)
            time.sleep(_POLL)

    def _last_words(self) -> str:
        """What the logs end with, of the parts that wrote something."""
        logs = sorted(self.folder.glob("*.log"), key=lambda log: log.stat().st_mtime)
        tails = {log.stem: log.read_text(errors="replace").splitlines()[-_TAIL:] for log in logs}
        ended = self.folder / ENDED
        first = ended.read_text() if ended.exists() else ""
        return first + "".join(f"\n--- {name}\n" + "\n".join(lines) for name, lines in tails.items() if lines)


def _bcrypt(password: str) -> str:
    """As htpasswd does it; the C library's own function, for Python has none."""
    library = ctypes.CDLL("libcrypt.so.1")
    library.crypt.restype = ctypes.c_char_p
    salt = "$2y$05$" + "".join(secrets.choice(_BCRYPT_ALPHABET) for _ in range(22))
    hashed: bytes = library.crypt(password.encode(), salt.encode())
    return hashed.decode()
