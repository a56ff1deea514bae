"""How much is tried, and which: a little in every run of the tests, a lot by ``make fuzz``."""

import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

SEED_VARIABLE = "KNATIVE_LAMBDA_BUILDER_TEST_SEED"
CASE_VARIABLE = "KNATIVE_LAMBDA_BUILDER_TEST_CASE"
BODIES = int(os.environ.get("KNATIVE_LAMBDA_BUILDER_TEST_BODIES", "10000"))
"""Through the parser; a fiftieth of them go through the port as well."""
SEED = os.environ.get(SEED_VARIABLE) or secrets.token_hex(4)


def numbers(count: int) -> Iterable[int]:
    """The cases to try: all of them, or the one that is to be tried again."""
    print(f"{SEED_VARIABLE}={SEED}")  # noqa: T201 -- pytest shows it with a failure
    alone = os.environ.get(CASE_VARIABLE)
    return range(count) if alone is None else (int(alone),)


@contextmanager
def replayable(number: int) -> Iterator[None]:
    """Say with whatever fails how to try it again."""
    try:
        yield
    except BaseException as exc:
        exc.add_note(f"again: {SEED_VARIABLE}={SEED} {CASE_VARIABLE}={number}")
        raise


def resident(pid: int | str = "self") -> int:
    """The resident set of a process in bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
