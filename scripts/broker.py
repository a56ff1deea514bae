"""A real RabbitMQ on loopback: one node with folders, ports and a name service of its own, gone when its parent is.

For tests (`with Broker() as broker: ...`) and for people (`python scripts/broker.py`). The program is Debian's
`rabbitmq-server`, which `scripts/setup-broker` sees to.
"""

import contextlib
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

from certificates import make_authority, make_certificate
from child_programs import LOOPBACK, PortTakenError, Program, ProgramError, Standing, free_port

SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
"""Not the one on the PATH: Debian's wrapper there insists on root."""
SETUP_SCRIPT = Path(__file__).with_name("setup-broker")
PORT_ATTEMPTS = 5
POLL_INTERVAL = 0.02
AWAY = 3.0
"""Seconds until a node that was killed by hand is noticed and started again: its clients are to notice too."""
PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
ACCOUNT = "guest:guest"


def missing() -> str | None:
    """Why there can be no broker here, and what to do about it; None if there can."""
    if os.access(SERVER, os.X_OK):
        return None
    return f"missing: {SERVER} (Debian and Ubuntu: the package rabbitmq-server); to get it, run {SETUP_SCRIPT}"


class Broker(Standing):
    """One RabbitMQ node as a context manager; when it ends, processes and data are gone.

    While it is open: `url` (AMQP, of the vhost `/`), `management_url` (with the account), `port`, and `data` (the
    folder with the log). With `tls`: `tls_port`, `ca_file`, and a client's `cert_file` and `key_file`. The account is
    guest:guest. Several may be open side by side.
    """

    def __init__(self, *, tls: bool = False, start_timeout: float = 90) -> None:
        """Start nothing yet; ProgramError says what is missing."""
        if (why := missing()) is not None:
            raise ProgramError(why)
        self.data = Path(tempfile.mkdtemp(prefix="broker-"))
        self.ca_file = self.data / "ca.crt"
        self.cert_file = self.data / "client.crt"
        self.key_file = self.data / "client.key"
        self.port = self.tls_port = 0
        self._tls = tls
        self._management_port = self._metrics_port = self._dist_port = self._epmd_port = 0
        self._start_timeout = start_timeout
        self._epmd: Program | None = None
        self._server: Program | None = None
        # Linux takes the death of the *thread* that forked for the death of the parent, see control_plane.py.
        self._spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="broker")

    def _stand_up(self) -> None:
        if self._tls:
            _make_certificates(self.data)
        self._on_free_ports()

    def close(self) -> None:
        """End what was started and remove the data; again is harmless."""
        self._end()
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd = None
        self._spawner.shutdown()
        shutil.rmtree(self.data, ignore_errors=True)

    @property
    def url(self) -> str:
        """Of the vhost `/`."""
        return self.url_of("/")

    @property
    def management_url(self) -> str:
        """Of the management API, with the account."""
        return f"http://{ACCOUNT}@{LOOPBACK}:{self._management_port}"

    @property
    def metrics_address(self) -> str:
        """Of what Prometheus scrapes: `/metrics`, and `/metrics/per-object` with a label for each queue."""
        return f"{LOOPBACK}:{self._metrics_port}"

    def url_of(self, vhost: str, *, tls: bool = False) -> str:
        """Of one vhost; with `tls` by name, for that is what the certificate is for."""
        place = f"amqps://{ACCOUNT}@localhost:{self.tls_port}" if tls else f"amqp://{ACCOUNT}@{LOOPBACK}:{self.port}"
        return f"{place}/{quote(vhost, safe='')}"

    def create_vhost(self, prefix: str) -> str:
        """Make a vhost `<prefix>-<random>` and return its name."""
        name = f"{prefix}-{secrets.token_hex(4)}"
        self.manage("PUT", f"/api/vhosts/{name}")
        self.manage("PUT", f"/api/permissions/{name}/guest", {"configure": ".*", "write": ".*", "read": ".*"})
        return name

    def delete_vhost(self, name: str) -> None:
        """With everything in it; its connections are closed."""
        self.manage("DELETE", f"/api/vhosts/{name}")

    def manage(self, method: str, path: str, body: object = None) -> Any:
        """One call of the management API; its document, or None where there is none."""
        connection = http.client.HTTPConnection(LOOPBACK, self._management_port, timeout=30)
        headers = {"Authorization": f"Basic {b64encode(ACCOUNT.encode()).decode()}", "Content-Type": "application/json"}
        with contextlib.closing(connection):
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            raw = response.read()
        if response.status >= http.client.BAD_REQUEST:
            message = f"{method} {path}: {response.status} {raw.decode(errors='replace')}"
            raise ProgramError(message)
        return json.loads(raw) if raw else None

    @property
    def pid(self) -> int:
        """Of the node's process."""
        assert self._server is not None  # noqa: S101 -- a caller's mistake
        return self._server.pid

    def ctl(self, *args: str) -> str:
        """Run rabbitmqctl (a second or two) and return what it prints."""
        command = [str(SERVER.with_name("rabbitmqctl")), *args]
        done = subprocess.run(command, env=self._environ(), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            message = f"rabbitmqctl {' '.join(args)}: exit code {done.returncode}: {done.stderr.strip()}"
            raise ProgramError(message)
        return done.stdout

    def check_alive(self) -> None:
        """Raise ProgramError with the end of its log when it has ended and should be running."""
        if self._server is not None:
            self._server.check_alive()

    def kill(self) -> None:
        """SIGKILL: as of a node that lost its power. Data and ports stay.

        RabbitMQ 3.10 writes the name of a new quorum queue down seconds late; killed before that, the node comes back
        without the queue's messages and without a leader for it. No test is about that, so it writes it down first.
        """
        if self._server is not None:
            self.ctl("eval", "[dets:sync(Table) || Table <- dets:all()].")
        self._end()

    def _end(self) -> None:
        if self._server is not None:
            self._server.kill()
            self._server = None

    def stop(self) -> None:
        """SIGTERM: clients are told. Data and ports stay."""
        if self._server is not None:
            self._server.signal(signal.SIGTERM)
            self._server.wait(self._start_timeout)
            self._server = None

    def freeze(self) -> None:
        """SIGSTOP: connections stay open, and nobody answers."""
        assert self._server is not None  # noqa: S101 -- a caller's mistake
        self._server.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        assert self._server is not None  # noqa: S101 -- a caller's mistake
        self._server.signal(signal.SIGCONT)

    def start(self) -> None:
        """Start it again, on the same ports, with the same data; returns when it is ready. Harmless while it runs."""
        if self._server is not None:
            return
        log = self.data / "rabbitmq.log"
        server = Program([str(SERVER)], log, self._spawner, self._environ())
        try:
            _wait_until(server, self._is_ready, self._start_timeout)
        except BaseException:
            server.kill()
            raise
        self._server = server

    def revive(self) -> None:
        """After somebody else has killed it: start it again, with its data."""
        self._end()
        self.start()

    def _on_free_ports(self) -> None:
        for attempt in range(PORT_ATTEMPTS):
            self.port, self.tls_port, self._management_port = free_port(), free_port(), free_port()
            self._metrics_port, self._dist_port, self._epmd_port = free_port(), free_port(), free_port()
            self._write_config()
            try:
                self._start_epmd()
                self.start()
            except PortTakenError:
                if attempt == PORT_ATTEMPTS - 1:
                    raise
            else:
                return

    def _start_epmd(self) -> None:
        """Erlang's name service. RabbitMQ would start one by itself, which would outlive it."""
        if self._epmd is not None:
            self._epmd.kill()
        command = [shutil.which("epmd") or "epmd", "-address", LOOPBACK, "-port", str(self._epmd_port)]
        self._epmd = Program(command, self.data / "epmd.log", self._spawner, self._environ())
        _wait_until(self._epmd, lambda: _connects(self._epmd_port), self._start_timeout)

    def _environ(self) -> dict[str, str]:
        data = str(self.data)
        own = {
            "HOME": data,
            "TMPDIR": data,
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RABBITMQ_NODENAME": "broker@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": LOOPBACK,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_MNESIA_BASE": f"{data}/mnesia",
            "RABBITMQ_LOG_BASE": data,
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": f"{data}/pid",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{data}/enabled_plugins",
            "RABBITMQ_CONFIG_FILE": f"{data}/rabbitmq.conf",
            "RABBITMQ_CONF_ENV_FILE": f"{data}/none",
            # Without a shell around the node, which would be what we kill while the node goes on.
            "RUNNING_UNDER_SYSTEMD": "true",
            # No busy waiting: the machine is shared with what is being tested.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +sbwtdcpu none +sbwtdio none",
        }
        others = {name: value for name, value in os.environ.items() if not name.startswith(("RABBITMQ_", "ERL_"))}
        return others | own

    def _write_config(self) -> None:
        lines = [
            f"listeners.tcp.1 = {LOOPBACK}:{self.port}",
            f"management.tcp.ip = {LOOPBACK}",
            f"management.tcp.port = {self._management_port}",
            f"prometheus.tcp.ip = {LOOPBACK}",
            f"prometheus.tcp.port = {self._metrics_port}",
            "disk_free_limit.absolute = 50MB",
        ]
        if self._tls:
            lines += [
                f"listeners.ssl.1 = {LOOPBACK}:{self.tls_port}",
                f"ssl_options.cacertfile = {self.ca_file}",
                f"ssl_options.certfile = {self.data}/server.crt",
                f"ssl_options.keyfile = {self.data}/server.key",
                "ssl_options.verify = verify_peer",
                "ssl_options.fail_if_no_peer_cert = false",
            ]
        self.data.joinpath("rabbitmq.conf").write_text("\n".join(lines) + "\n")
        self.data.joinpath("enabled_plugins").write_text("[rabbitmq_management,rabbitmq_prometheus].\n")

    def _is_ready(self) -> bool:
        """It answers AMQP (a bare connect succeeds seconds earlier), and so does the management API."""
        with socket.create_connection((LOOPBACK, self.port), timeout=5) as probe:
            probe.sendall(PROTOCOL_HEADER)
            if not probe.recv(1):
                return False
        self.manage("GET", "/api/overview")
        return True


def _connects(port: int) -> bool:
    with socket.create_connection((LOOPBACK, port), timeout=5):
        return True


def _wait_until(program: Program, is_ready: Callable[[], bool], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while True:
        program.check_alive()
        with contextlib.suppress(OSError, http.client.HTTPException, ProgramError):  # not there yet, or only half
            if is_ready():
                return
        if time.monotonic() > deadline:
            message = f"{program.name} is not ready after {timeout:g} s; {program.log_tail()}"
            raise ProgramError(message)
        time.sleep(POLL_INTERVAL)


def _make_certificates(folder: Path) -> None:
    """An authority that nobody knows, a certificate of its for the server, and one for a client."""
    make_authority(folder)
    names = "DNS:localhost", f"IP:{LOOPBACK}"
    make_certificate(folder, "server", "serverAuth", names)
    make_certificate(folder, "client", "clientAuth", names)


def main(arguments: list[str]) -> int:
    """For a person: start it, say how to use it, stay until Ctrl-C or SIGTERM. `--print`: only where the program is.

    When its node is killed it comes back after a while, as under systemd or Kubernetes.
    """
    if arguments == ["--print"]:
        print(SERVER)
        return 0

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        with Broker() as broker:
            print(f"export BUILDER_RABBITMQ__URL={broker.url}")
            print(f"export BUILDER_RABBITMQ__MANAGEMENT_URL={broker.management_url}")
            print(f"kill -9 {broker.pid} ends it hard, and it comes back with its data.")
            print("Ctrl-C ends it and removes everything.", flush=True)
            while True:
                time.sleep(AWAY)
                try:
                    broker.check_alive()
                except ProgramError:
                    broker.revive()
                    print(f"It was killed, and is back as process {broker.pid}.", flush=True)
    except KeyboardInterrupt:
        return 0
    except ProgramError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
