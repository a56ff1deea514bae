"""The time of day of one process, as a test wants it. Its monotonic clock, and everybody else's clocks, go on as ever."""

import os
from pathlib import Path

import pytest

_LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


def skip_without_clocks() -> None:
    """Skip the test where libfaketime is missing; fail it in CI."""
    if _LIBRARY is None:
        absent = pytest.fail if "CI" in os.environ else pytest.skip
        absent("needs Debian's libfaketime: scripts/setup-faketime")


class Clock:
    """Tells a process how wrong its time of day is; the file lies at ``path``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.set("+0")

    def set(self, step: str) -> None:
        """``+36h``, ``-20m``, or ``+0`` for the true time. Far back no certificate is valid yet."""
        written = self._path.with_suffix(".new")
        written.write_text(step)
        written.replace(self._path)  # at once: it may be read at any moment

    @property
    def environ(self) -> dict[str, str]:
        """What makes a process believe it."""
        return {
            "LD_PRELOAD": str(_LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._path),
            "FAKETIME_CACHE_DURATION": "1",  # seconds until a step is noticed; reading the file each time is slow
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
