"""Time by the wall and by this process's processor."""

import resource
import time


class Stopwatch:
    """Runs from the moment that it is made."""

    def __init__(self) -> None:
        self._wall = time.perf_counter()
        self._cpu = _cpu()

    def read(self) -> dict[str, float]:
        """Seconds so far."""
        return {"seconds": time.perf_counter() - self._wall, "cpu": _cpu() - self._cpu}


def _cpu() -> float:
    """User and system time of this process alone, all of its threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
