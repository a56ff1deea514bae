"""Randomness that can be had again: the seed is printed, and pytest shows that with a failure."""

import os
import random
import secrets

VARIABLE = "KNATIVE_LAMBDA_BUILDER_TEST_SEED"


def chance(number: int = 0) -> random.Random:
    """From the seed in the environment, else from a new one; ``number`` tells several tests of one seed apart."""
    seed = os.environ.get(VARIABLE) or secrets.token_hex(4)
    print(f"{VARIABLE}={seed}")  # noqa: T201 -- for whom the test fails
    return random.Random(f"{seed} {number}")  # noqa: S311 -- to be repeated, not to be secret
