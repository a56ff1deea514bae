"""How long to wait before the next try."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.retry import Backoff


@pytest.mark.parametrize(
    ("attempt", "draw", "floor", "expected"),
    [
        (0, 1.0, None, 0.1),
        (1, 1.0, None, 0.2),
        (3, 0.5, None, 0.4),
        (20, 1.0, None, 30.0),
        (0, 0.0, None, 0.0),
        (0, 0.0, 7.0, 7.0),
        (0, 1.0, 7.0, 7.1),
        (0, 1.0, 90.0, 90.1),
        (10_000, 1.0, None, 30.0),
    ],
)
def test_delays(attempt: int, draw: float, floor: float | None, expected: float) -> None:
    """Doubled each time up to the cap, jittered over the whole range, never before the server's Retry-After."""
    assert Backoff(base=0.1, cap=30.0).delay(attempt, lambda: draw, floor) == pytest.approx(expected)


@given(st.integers(0, 10**6), st.floats(0, 1, exclude_max=True), st.none() | st.floats(0, 3600))
def test_bounds(attempt: int, draw: float, floor: float | None) -> None:
    """Whatever happens, a delay is between its floor and its floor plus the cap."""
    low = 0.0 if floor is None else floor
    assert low <= Backoff(base=0.1, cap=30.0).delay(attempt, lambda: draw, floor) <= low + 30.0
