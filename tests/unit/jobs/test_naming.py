"""Names are always legal, always the same for the same build, and never shared."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.jobs.naming import image_tag, job_name, label_value
from builder.models import Target
from tests import building

ID = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,98}[A-Za-z0-9])?", fullmatch=True)
SHORT_ID = st.from_regex(r"[ab]([ab.-]{0,4}[ab])?", fullmatch=True)  # small alphabet: collisions would be found
NAME = st.none() | st.from_regex(r"(kaniko-job-)?[ab]([ab-]{0,70}[ab])?", fullmatch=True)
DNS_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


@pytest.mark.parametrize(
    ("target", "wanted", "expected"),
    [
        (Target("acme", "parser1"), None, "kaniko-job-acme-parser1"),
        (Target("acme", "parser1"), "kaniko-job-acme-parser1", "kaniko-job-acme-parser1"),
        (Target("acme", "parser1"), "nightly", "nightly"),
        (Target("a-b", "c"), None, "kaniko-job-a-b-c--hmm7dvgqxesn2rb2hdbp"),
        (Target("a", "b-c"), None, "kaniko-job-a-b-c--4i3nhg5srksuxx4gq65d"),
    ],
)
def test_job_names(target: Target, wanted: str | None, expected: str) -> None:
    """A short, unambiguous name stays as people expect it; every other ends with a hash of its identity."""
    assert job_name(target, wanted) == expected


def test_the_example_of_004_has_a_legal_name() -> None:
    """004's own job_name has 76 characters, Kubernetes takes 63; with and without it the target has one name."""
    target = Target(building.THIRD_PARTY, building.PARSER)
    name = job_name(target, f"kaniko-job-{building.THIRD_PARTY}-{building.PARSER}")
    assert name == job_name(target, None)
    assert name.startswith("kaniko-job-0307ea43639b46-0197ad6c10b973--")
    assert len(name) <= 63


def test_nobody_takes_the_name_of_anothers_build() -> None:
    """An explicit name that looks derived, or closed, is closed with its own owner's hash."""
    victim, attacker = Target("victim", "parser"), Target("attacker", "x")
    for stolen in (job_name(victim, None), job_name(Target("victim-1", "p"), None)):
        assert job_name(attacker, stolen) != stolen


@given(ID, ID, NAME)
def test_job_names_are_always_legal(third_party: str, parser: str, wanted: str | None) -> None:
    """No choice of ids makes a name that the API server refuses."""
    name = job_name(Target(third_party, parser), wanted)
    assert len(name) <= 63
    assert DNS_NAME.fullmatch(name)


@given(st.tuples(SHORT_ID, SHORT_ID), st.tuples(SHORT_ID, SHORT_ID))
def test_two_targets_never_share_a_derived_name(one: tuple[str, str], other: tuple[str, str]) -> None:
    """The name is the target's lock: it may lock nobody else's."""
    assert (job_name(Target(*one), None) == job_name(Target(*other), None)) == (one == other)


@given(ID, ID)
def test_labels_are_legal_and_unshared(one: str, other: str) -> None:
    """A label is the id itself or a closed form that no other id can have."""
    assert len(label_value(one)) <= 63
    assert LABEL.fullmatch(label_value(one))
    assert (label_value(one) == label_value(other)) == (one == other)
    assert label_value(label_value(one)) != label_value(one) or label_value(one) == one


@given(ID, ID, st.text(min_size=1), st.text(min_size=1))
def test_tags_are_legal_and_of_one_event(third_party: str, parser: str, source: str, event_id: str) -> None:
    """Every event has its own tag, however odd its id, and the same one at each delivery."""
    request = building.request(target=Target(third_party, parser), event_source=source, event_id=event_id)
    next_event = building.request(target=Target(third_party, parser), event_source=source, event_id=event_id + "x")
    shifted = building.request(target=Target(third_party, parser), event_source=source + event_id, event_id="x")
    assert TAG.fullmatch(image_tag(request))
    assert len({image_tag(request), image_tag(next_event), image_tag(shifted)}) == 3
