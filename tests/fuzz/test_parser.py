"""Whatever comes is an event, or is rejected with a reason; and no Job is made that should not be.

Longer, with ``make fuzz``; a case that failed once more with the variables that it prints.
"""

import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz.amount import BODIES, SEED, numbers, replayable, resident
from tests.fuzz.judge import judge
from tests.fuzz.mutations import CONTENT_TYPES, STRINGS, URLS, VALUES, Case, binary, case, honest, structured

MEMORY = 32 * 2**20
"""What a million events may leave behind in this process, caches included."""

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from([*VALUES, *URLS]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
words = st.sampled_from(STRINGS) | st.text(max_size=30)
content_types = st.sampled_from(CONTENT_TYPES) | st.text(max_size=20)
NAMES = ["third_party_id", "parser_id", "correlation_id", "job_name", "priority", "parameters"]
OF_PARAMETERS = ["build_type", "runtime", "source_url", "ref", "sub_path", "dockerfile", "build_timeout", "environment"]


@st.composite
def events(draw: st.DrawFn) -> dict[str, Any]:
    """An honest one with some members replaced by anything, or by something that looks better than it is."""
    document = honest(1, random.Random(0))  # noqa: S311 -- no secret
    for name, value in draw(st.dictionaries(st.sampled_from(list(document)), values, max_size=1)).items():
        document[name] = value
    if isinstance(data := document.get("data"), dict):
        data |= draw(st.dictionaries(st.sampled_from(NAMES), values | words, max_size=2))
        if isinstance(parameters := data.get("parameters"), dict):
            anything = values | words | st.sampled_from(URLS)
            parameters |= draw(st.dictionaries(st.sampled_from(OF_PARAMETERS), anything, max_size=3))
    return document


requests = st.one_of(
    st.builds(lambda kind, body: Case([("Content-Type", kind)], body), content_types, st.binary(max_size=200)),
    st.builds(
        Case,
        st.lists(st.tuples(st.sampled_from(["ce-id", "ce-type", "ce-source", "ce-time", "ce-x"]), words), max_size=6),
        st.binary(max_size=50),
    ),
    events().map(lambda document: structured([document])),
    events().map(lambda document: binary([document])),
)


@pytest.mark.timeout(3600)
def test_mutated_requests() -> None:
    """Honest requests, changed by chance; all of them together leave nothing behind."""
    before, jobs, rejected = 0, 0, 0
    for count, number in enumerate(numbers(BODIES)):
        if count == BODIES // 10:  # the caches are full by then
            before = resident()
        with replayable(number):
            verdict = judge(case(SEED, number))
        jobs += len(verdict.jobs)
        rejected += verdict.rejected
    print(f"{jobs} Jobs, {rejected} rejected")  # noqa: T201 -- for the record
    if before:
        assert resident() - before < MEMORY
        assert jobs > BODIES // 5, "hardly anything came through: nothing is tried"
        assert rejected > BODIES // 5


@pytest.mark.timeout(3600)
@seed(int.from_bytes(SEED.encode()))
@settings(max_examples=max(100, BODIES // 50), deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(made=requests)
def test_invented_requests(made: Case) -> None:
    """What hypothesis thinks of, which makes a failure small as well."""
    judge(made)
