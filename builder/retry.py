"""How long to wait before the next try: five numbers in, one delay out. And when to give up together."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential back-off with full jitter.

    ``base`` is the first upper bound in seconds, doubled for each further try and never above ``cap``.
    Full jitter (uniform between 0 and the bound) spreads clients that failed together:
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """

    base: float
    cap: float

    def delay(self, attempt: int, draw: Callable[[], float], floor: float | None = None) -> float:
        """Seconds to wait after failure number ``attempt`` (0 is the first).

        ``draw`` gives a number in [0, 1). ``floor`` is a server's Retry-After: never come back before it, and
        spread the return above it. It may exceed ``cap``, for the server knows best.
        """
        # 2**64 overflows no float and is past every cap.
        jittered = draw() * min(self.cap, self.base * 2.0 ** min(attempt, 64))
        return jittered if floor is None else floor + jittered


class Hope:
    """How long many go on trying together: for ``patience`` seconds after the last success of any of them."""

    def __init__(self, patience: float, clock: Callable[[], float]) -> None:
        self.patience = patience
        self._clock = clock
        self.renew()

    def renew(self) -> None:
        """One of them has succeeded."""
        self.until = self._clock() + self.patience

    def outlasts(self, pause: float) -> bool:
        """True if there will be some left after so many seconds."""
        return self._clock() + pause <= self.until
