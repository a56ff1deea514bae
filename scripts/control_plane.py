"""A real Kubernetes API on loopback: etcd, kube-apiserver and kube-controller-manager as plain processes.

For tests (`with ControlPlane() as cluster: ...`) and for people (`python scripts/control_plane.py`). There is no node:
Pods stay Pending, and a test plays the kubelet by patching their status. The programs come from
`scripts/build-control-plane`, or from the folder that KUBEBUILDER_ASSETS names.
"""

import contextlib
import http.client
import json
import os
import secrets
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from child_programs import LOOPBACK, PortTakenError, Program, ProgramError, Standing, free_port

BUILD_SCRIPT = Path(__file__).with_name("build-control-plane")
PROGRAMS = ("etcd", "kube-apiserver", "kubectl", "kube-controller-manager")
PORT_ATTEMPTS = 5
POLL_INTERVAL = 0.02
DEFAULT_SERVICE_ACCOUNT = "/api/v1/namespaces/{}/serviceaccounts/default"
CONTROLLERS = (
    "job-controller",
    "ttl-after-finished-controller",
    "garbage-collector-controller",
    "namespace-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "root-ca-certificate-publisher-controller",
    "resourcequota-controller",
)


class ControlPlaneError(ProgramError):
    """A part of the control plane is missing, or kubectl or the API answered with an error."""


@dataclass(frozen=True, slots=True)
class Binaries:
    """Where the programs are; KUBEBUILDER_ASSETS folders have no controller manager."""

    etcd: Path
    kube_apiserver: Path
    kubectl: Path
    kube_controller_manager: Path | None


@dataclass(frozen=True, slots=True)
class Missing:
    """Why there can be no control plane here, and what to do about it."""

    reason: str


def find_binaries() -> Binaries | Missing:
    """Find the programs in KUBEBUILDER_ASSETS or in the cache folder; `build-control-plane` knows which."""
    shown = subprocess.run([BUILD_SCRIPT, "--print"], check=True, capture_output=True, text=True)
    folder = shown.stdout.strip()
    found = {name: Path(path).absolute() for name in PROGRAMS if (path := shutil.which(name, path=folder))}
    if "etcd" not in found and (path := shutil.which("etcd")):
        found["etcd"] = Path(path).absolute()
    if missing := [name for name in PROGRAMS if name not in found and name != "kube-controller-manager"]:
        places = f"{folder}, and for etcd on the PATH"
        return Missing(f"missing: {', '.join(missing)} (looked in {places}); to get them, run {BUILD_SCRIPT}")
    return Binaries(found["etcd"], found["kube-apiserver"], found["kubectl"], found.get("kube-controller-manager"))


@dataclass(frozen=True, slots=True)
class Extras:
    """What a control plane with a node has more: users (lines of a token file), flags and controllers."""

    users: Sequence[str] = ()
    apiserver: Sequence[str] = ()
    controllers: Sequence[str] = ()


class ControlPlane(Standing):
    """A whole control plane as a context manager; when it ends, processes and data are gone.

    While it is open: `url` (also the issuer of service account tokens), `port`, `ca_file`, `token` (a user in
    system:masters), `kubeconfig` (a file for the same user), `binaries`, and `data` (the folder with the logs). Several
    may be open side by side.
    """

    def __init__(
        self, binaries: Binaries | None = None, *, extras: Extras | None = None, start_timeout: float = 60
    ) -> None:
        """Start nothing yet; without `binaries` they are looked up, and ControlPlaneError says what is missing."""
        found = find_binaries() if binaries is None else binaries
        if isinstance(found, Missing):
            raise ControlPlaneError(found.reason)
        self.binaries = found
        self._extras = Extras() if extras is None else extras
        self.data = Path(tempfile.mkdtemp(prefix="control-plane-"))
        self.ca_file = self.data / "certificates" / "apiserver.crt"
        self.kubeconfig = self.data / "kubeconfig"
        self._service_account_key = self.data / "service-account.key"
        self.token = secrets.token_urlsafe(24)
        self._start_timeout = start_timeout
        self.url = ""
        self.port = self._etcd_port = 0
        self._running: dict[Path, Program] = {}  # in the order of their start
        # Linux takes the death of the *thread* that forked for the death of the parent: all children are started from
        # one thread that lives as long as this object, whichever thread the caller is in.
        self._spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="control-plane")

    def _stand_up(self) -> None:
        self._write_credentials()
        self._on_free_port(self._start_etcd)
        self._on_free_port(self._start_apiserver)
        self._start_controller_manager()

    def close(self) -> None:
        """End what was started and remove the data; again is harmless."""
        for name in reversed(list(self._running)):
            self._running.pop(name).kill()
        self._spawner.shutdown()
        shutil.rmtree(self.data, ignore_errors=True)

    def check_alive(self) -> None:
        """Raise ProgramError with the end of its log when a program has ended that should be running."""
        for program in self._running.values():
            program.check_alive()

    def stop_apiserver(self) -> None:
        """Begin an outage: from now on connections are refused. Data, port and tokens stay.

        The controller manager goes too: one that lived through 20 s of outage was measured to need 50 s to come back.
        """
        for path in (self.binaries.kube_controller_manager, self.binaries.kube_apiserver):
            if path in self._running:
                self._running.pop(path).kill()

    def start_apiserver(self) -> None:
        """End the outage: same port, same data; returns when the API server is ready. Harmless while it runs."""
        if self.binaries.kube_apiserver not in self._running:
            self._start_apiserver(self.port)
            self._start_controller_manager()

    def freeze_apiserver(self) -> None:
        """Begin another kind of outage: connections are made, and nothing is ever answered."""
        self._running[self.binaries.kube_apiserver].signal(signal.SIGSTOP)

    def thaw_apiserver(self) -> None:
        """End it: whatever came meanwhile is answered."""
        self._running[self.binaries.kube_apiserver].signal(signal.SIGCONT)

    def kubectl(self, *args: str, input: str | None = None) -> str:  # noqa: A002 -- subprocess.run's own word
        """Run kubectl as the admin and return what it prints; ControlPlaneError carries its complaint.

        It gets a cache of its own: the user's is keyed by port, so an earlier control plane's CRDs could be in it.
        """
        flags = f"--kubeconfig={self.kubeconfig}", f"--cache-dir={self.data}/kubectl"
        command = [str(self.binaries.kubectl), *flags, *args]
        done = subprocess.run(command, input=input, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            message = f"kubectl {' '.join(args)}: exit code {done.returncode}: {done.stderr.strip()}"
            raise ControlPlaneError(message)
        return done.stdout

    def create_namespace(self, prefix: str) -> str:
        """Make a namespace `<prefix>-<random>` and return its name once Pods can be made in it."""
        manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": f"{prefix}-"}}
        status, answer = self._request("POST", "/api/v1/namespaces", manifest)
        if status != http.client.CREATED:
            message = f"namespace {prefix}-…: {status} {answer.get('message')}"
            raise ControlPlaneError(message)
        name = str(answer["metadata"]["name"])
        if self.binaries.kube_controller_manager is not None:
            controllers = self._running[self.binaries.kube_controller_manager]
            self._wait_until(controllers, lambda: self._has_service_account(name))
        return name

    def install_crds(self, folder: Path) -> None:
        """Make the CRDs in `folder` known; returns when the API server serves them all."""
        self.kubectl("create", "-f", str(folder))
        apiserver = self._running[self.binaries.kube_apiserver]
        self._wait_until(apiserver, self._all_crds_established)

    def _all_crds_established(self) -> bool:
        # Not by `kubectl wait`, which stumbles over a CRD without a status.
        _, crds = self._request("GET", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions")
        wanted = {"type": "Established", "status": "True"}
        return all(
            any(wanted.items() <= condition.items() for condition in crd.get("status", {}).get("conditions") or ())
            for crd in crds["items"]
        )

    def _write_credentials(self) -> None:
        users = [f"{self.token},admin,admin,system:masters", *self._extras.users]
        self.data.joinpath("tokens.csv").write_text("\n".join(users) + "\n")
        command = ["openssl", "genrsa", "-out", str(self._service_account_key), "2048"]
        made = subprocess.run(command, capture_output=True, text=True, check=False)
        if made.returncode != 0:
            message = f"openssl made no service account key: {made.stderr.strip()}"
            raise ControlPlaneError(message)

    def _write_kubeconfig(self) -> None:
        cluster = {"server": self.url, "certificate-authority": str(self.ca_file)}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "loopback", "cluster": cluster}],
            "users": [{"name": "admin", "user": {"token": self.token}}],
            "contexts": [{"name": "loopback", "context": {"cluster": "loopback", "user": "admin"}}],
            "current-context": "loopback",
        }
        self.kubeconfig.write_text(json.dumps(config))

    def _on_free_port(self, start: Callable[[int], None]) -> None:
        for _ in range(PORT_ATTEMPTS - 1):
            with contextlib.suppress(PortTakenError):
                return start(free_port())
        return start(free_port())

    def _start_etcd(self, port: int) -> None:
        self._etcd_port = port
        self._start(
            self.binaries.etcd,
            f"--data-dir={self.data}/etcd",
            f"--listen-client-urls=http://{LOOPBACK}:{port}",
            f"--advertise-client-urls=http://{LOOPBACK}:{port}",
            f"--listen-peer-urls=http://{LOOPBACK}:0",  # the kernel's choice: nobody else wants to know it
            "--unsafe-no-fsync",
            # Made after the bind: a port that answers could be somebody else's etcd.
            is_ready=(self.data / "etcd" / "member").is_dir,
        )

    def _start_apiserver(self, port: int) -> None:
        self.port = port
        self.url = f"https://{LOOPBACK}:{port}"
        self._write_kubeconfig()
        # Nobody makes service accounts without a controller manager, and Pods would be refused for want of one.
        disabled = "" if self.binaries.kube_controller_manager else "ServiceAccount"
        self._start(
            self.binaries.kube_apiserver,
            f"--etcd-servers=http://{LOOPBACK}:{self._etcd_port}",
            f"--bind-address={LOOPBACK}",
            f"--secure-port={port}",
            f"--cert-dir={self.ca_file.parent}",
            f"--token-auth-file={self.data}/tokens.csv",
            f"--service-account-key-file={self._service_account_key}",
            f"--service-account-signing-key-file={self._service_account_key}",
            f"--service-account-issuer={self.url}",  # a reachable one, so that tokens can be verified by discovery
            f"--service-account-jwks-uri={self.url}/openid/v1/jwks",  # the default is an address of the machine's
            "--service-cluster-ip-range=10.0.0.0/24",
            "--authorization-mode=RBAC",
            "--allow-privileged=true",
            "--endpoint-reconciler-type=none",
            f"--disable-admission-plugins={disabled}",
            *self._extras.apiserver,
            is_ready=lambda: self._answers_ok("/readyz"),
        )

    def _start_controller_manager(self) -> None:
        if self.binaries.kube_controller_manager is None:
            return
        # It works when it has made service accounts. After an outage they are all there: one that nobody uses goes.
        unused = "kube-node-lease"
        self._request("DELETE", DEFAULT_SERVICE_ACCOUNT.format(unused))
        self._start(
            self.binaries.kube_controller_manager,
            f"--kubeconfig={self.kubeconfig}",
            f"--controllers={','.join([*CONTROLLERS, *self._extras.controllers])}",
            f"--service-account-private-key-file={self._service_account_key}",
            f"--root-ca-file={self.ca_file}",
            "--leader-elect=false",
            "--secure-port=0",
            # By default 20 calls a second: the Pods of 200 Jobs would come seconds after their Jobs.
            "--kube-api-qps=500",
            "--kube-api-burst=1000",
            is_ready=lambda: all(map(self._has_service_account, ("default", unused))),
        )

    def _start(self, path: Path, *flags: str, is_ready: Callable[[], bool]) -> None:
        program = Program([str(path), *flags], self.data / f"{path.name}.log", self._spawner)
        try:
            self._wait_until(program, is_ready)
        except BaseException:
            program.kill()
            raise
        self._running[path] = program

    def _has_service_account(self, namespace: str) -> bool:
        return self._answers_ok(DEFAULT_SERVICE_ACCOUNT.format(namespace))

    def _answers_ok(self, path: str) -> bool:
        return self._request("GET", path)[0] == http.client.OK

    def _wait_until(self, program: Program, is_ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self._start_timeout
        while True:
            program.check_alive()
            with contextlib.suppress(OSError, http.client.HTTPException):  # not listening yet, or only half
                if is_ready():
                    return
            if time.monotonic() > deadline:
                message = f"{program.name} is not ready after {self._start_timeout:g} s; {program.log_tail()}"
                raise ControlPlaneError(message)
            time.sleep(POLL_INTERVAL)

    def _request(self, method: str, path: str, body: object = None) -> tuple[int, dict[str, Any]]:
        """One call as the admin: the status and the object (empty when the answer is no JSON, as of /readyz)."""
        tls = ssl.create_default_context(cafile=str(self.ca_file))
        connection = http.client.HTTPSConnection(LOOPBACK, self.port, context=tls, timeout=5)
        with contextlib.closing(connection):
            headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            raw = response.read()
            is_json = response.headers.get_content_type() == "application/json"
            return response.status, json.loads(raw) if is_json else {}


def main() -> int:
    """For a person: start it, say how to use it, stay until Ctrl-C or SIGTERM."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        with ControlPlane() as cluster:
            kubectl = cluster.binaries.kubectl
            if folder := os.environ.get("CRD_DIR"):
                cluster.install_crds(Path(folder))
            print(f"export KUBECONFIG={cluster.kubeconfig}")
            print(f"{kubectl} create job hello --image=busybox")
            print(f"{kubectl} get jobs,pods")
            print("No node here: Pods stay Pending. Ctrl-C ends it and removes everything.", flush=True)
            while True:
                cluster.check_alive()
                time.sleep(0.5)
    except KeyboardInterrupt:
        return 0
    except ProgramError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
