"""A real Prometheus on loopback, for tests: the program is Debian's, which `scripts/setup-prometheus` sees to."""

import contextlib
import http.client
import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from child_programs import LOOPBACK, Program, ProgramError, Standing, free_port

POLL_INTERVAL = 0.05


def missing() -> str | None:
    """Why there can be no Prometheus here, and what to do about it; None if there can."""
    if shutil.which("prometheus") is not None:
        return None
    return f"missing: prometheus; to get it, run {Path(__file__).with_name('setup-prometheus')}"


class Prometheus(Standing):
    """One server as a context manager; when it ends, process and data are gone. ``config`` is its file, as JSON."""

    def __init__(self, config: Mapping[str, Any], rules: Mapping[str, Any], *, start_timeout: float = 60) -> None:
        """Start nothing yet; ProgramError says what is missing."""
        if (why := missing()) is not None:
            raise ProgramError(why)
        self._data = Path(tempfile.mkdtemp(prefix="prometheus-"))
        (self._data / "rules.json").write_text(json.dumps(rules))
        (self._data / "prometheus.json").write_text(json.dumps({**config, "rule_files": ["rules.json"]}))
        self._port = free_port()
        self._start_timeout = start_timeout
        self._spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prometheus")
        self._program: Program | None = None

    def _stand_up(self) -> None:
        command = [shutil.which("prometheus") or "prometheus", "--config.file=prometheus.json"]
        command += [f"--storage.tsdb.path={self._data}/data", f"--web.listen-address={LOOPBACK}:{self._port}"]
        command += ["--enable-feature=exemplar-storage"]
        self._program = Program(command, self._data / "log", self._spawner)
        self._until_ready(self._program)

    def close(self) -> None:
        """End it and remove its data; again is harmless."""
        if self._program is not None:
            self._program.kill()
        self._spawner.shutdown()
        shutil.rmtree(self._data, ignore_errors=True)

    def get(self, path: str, **parameters: str) -> Any:
        """What its API answers under ``data``."""
        status, body = self._request(f"/api/v1/{path}?{urlencode(parameters)}")
        if status != http.client.OK:
            message = f"{path} {parameters}: {status} {body.decode(errors='replace')}"
            raise ProgramError(message)
        return json.loads(body)["data"]

    def query(self, expression: str) -> list[float]:
        """The values of an expression now."""
        return [float(series["value"][1]) for series in self.get("query", query=expression)["result"]]

    def _request(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(LOOPBACK, self._port, timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()

    def _until_ready(self, program: Program) -> None:
        deadline = time.monotonic() + self._start_timeout
        while True:
            program.check_alive()
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self._request("/-/ready")[0] == http.client.OK:
                    return
            if time.monotonic() > deadline:
                message = f"prometheus is not ready after {self._start_timeout:g} s; {program.log_tail()}"
                raise ProgramError(message)
            time.sleep(POLL_INTERVAL)
