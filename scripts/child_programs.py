"""Servers as child processes, for tests and for a look by hand: on loopback, with a log, gone when their parent is."""

import contextlib
import ctypes
import os
import secrets
import signal
import socket
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

LOOPBACK = "127.0.0.1"
# Below Linux's range for outgoing connections (32768 and up): a client that retries towards a stopped server could
# otherwise be given the server's own port as its source port, connect to itself and keep the server from coming back.
PORTS = range(10_000, 32_000)
LOG_TAIL_LINES = 15


class ProgramError(Exception):
    """A program did not start, or ended by itself."""


class PortTakenError(ProgramError):
    """Somebody else got the port between our look and the program's bind."""


class Standing(ABC):
    """Servers that stand as long as a ``with`` statement. A start that fails leaves nothing behind."""

    def __enter__(self) -> Self:
        try:
            self._stand_up()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def _stand_up(self) -> None: ...

    @abstractmethod
    def close(self) -> None:
        """End what was started; again is harmless."""


class Program:
    """One running child process and its log."""

    def __init__(
        self, command: list[str], log: Path, spawner: ThreadPoolExecutor, environ: Mapping[str, str] | None = None
    ) -> None:
        """Start it, in ``environ`` where one is given; ``spawner`` must live as long as the program."""
        self.name = Path(command[0]).name
        self._log = log
        self._process = spawner.submit(_spawn, command, log, environ).result()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def check_alive(self) -> None:
        """Raise when it has ended, with the end of its log."""
        if (code := self._process.poll()) is not None:
            message = f"{self.name} ended with exit code {code}; {self.log_tail()}"
            taken = "address already in use" in message or "eaddrinuse" in message
            raise PortTakenError(message) if taken else ProgramError(message)

    def log_tail(self) -> str:
        """The last lines that it wrote."""
        return "its log ends with:\n" + "\n".join(self._log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:])

    def kill(self) -> None:
        """SIGKILL: the data is thrown away anyway, and a polite stop takes an API server seconds."""
        self._process.kill()
        self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def wait(self, seconds: float) -> None:
        """Return when it has ended."""
        self._process.wait(seconds)


def _spawn(command: list[str], log: Path, environ: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            cwd=log.parent,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C in the terminal is for the parent alone
            preexec_fn=die_with_parent() if sys.platform == "linux" else None,  # noqa: PLW1509 -- see there
        )


def die_with_parent() -> Callable[[], None]:
    """Make a child's first act: ask the kernel to kill it when its parent dies.

    A test run that is killed with SIGKILL (out of memory, CI time-out) runs no cleanup, and the programs would stay for
    ever. The C library is loaded here, before the fork: after it, with other threads gone, little is safe to do.
    """
    pr_set_pdeathsig = 1
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def ask_kernel() -> None:
        prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return ask_kernel


def free_port() -> int:
    """A port that nobody has at the moment."""
    while True:
        port = secrets.choice(PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((LOOPBACK, port))
            return port
