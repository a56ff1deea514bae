"""The order of the build queue, against a plain model and against its promises."""

import itertools
from collections import defaultdict
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from builder.flow.fair_order import LOWEST, SHARED_TURN, FairOrder


@dataclass(slots=True, eq=False)
class One:
    """What stands in the order."""

    priority: int
    party: str
    name: str
    following: "One | None" = None


class Model:
    """The same order in the plainest words: for each priority the parties in the order of their turns, with their items."""

    def __init__(self) -> None:
        self.parties: dict[int, list[tuple[str, list[One]]]] = defaultdict(list)
        self.served: dict[int, int] = {}
        self.takes = 0

    def put(self, item: One) -> None:
        parties = self.parties[item.priority]
        if not parties:
            self.served[item.priority] = self.takes
        for who, items in parties:
            if who == item.party:
                items.append(item)
                return
        parties.append((item.party, [item]))

    def take(self) -> One:
        self.takes += 1
        waiting = sorted(priority for priority, parties in self.parties.items() if parties)
        priority = waiting[0]
        if self.takes % SHARED_TURN == 0:
            priority = min(waiting, key=lambda one: self.served[one])
        self.served[priority] = self.takes
        party, (item, *rest) = self.parties[priority].pop(0)
        if rest:
            self.parties[priority].append((party, rest))
        return item

    def all(self) -> set[One]:
        return {item for parties in self.parties.values() for _, items in parties for item in items}

    def firsts(self) -> set[One]:
        return {first for parties in self.parties.values() for _, (first, *_) in parties}


class AgainstTheModel(RuleBasedStateMachine):
    """Any mixture of puts and takes gives the model's order."""

    def __init__(self) -> None:
        super().__init__()
        self.order: FairOrder[One] = FairOrder()
        self.model = Model()
        self.numbers = itertools.count()

    @rule(priority=st.integers(1, LOWEST), party=st.sampled_from("abc"))
    def put(self, priority: int, party: str) -> None:
        one = One(priority, party, str(next(self.numbers)))
        self.order.put(one)
        self.model.put(one)

    @precondition(lambda self: self.model.all())
    @rule()
    def take(self) -> None:
        assert self.order.take() is self.model.take()

    @invariant()
    def same_items(self) -> None:
        assert len(self.order) == len(list(self.order)) == len(self.model.all())
        assert set(self.order) == self.model.all()
        assert set(self.order.firsts()) == self.model.firsts()


TestAgainstTheModel = AgainstTheModel.TestCase


def drained(order: FairOrder[One]) -> list[str]:
    """All items in the order in which they are taken."""
    return [order.take().name for _ in range(len(order))]


def test_the_most_urgent_comes_first() -> None:
    """Priority 1 before 5 before 10, whatever came first."""
    order: FairOrder[One] = FairOrder()
    for priority in (10, 5, 1, 5):
        order.put(One(priority, "acme", f"p{priority}"))
    assert drained(order) == ["p1", "p5", "p5", "p10"]


def test_first_in_first_out_inside_a_priority() -> None:
    """One party's items keep their order."""
    order: FairOrder[One] = FairOrder()
    for item in "abcd":
        order.put(One(5, "acme", item))
    assert drained(order) == ["a", "b", "c", "d"]


def test_third_parties_take_turns() -> None:
    """One with many events does not make another wait for them all."""
    order: FairOrder[One] = FairOrder()
    for number in range(4):
        order.put(One(5, "flood", f"flood{number}"))
    order.put(One(5, "acme", "acme0"))
    order.put(One(5, "tiny", "tiny0"))
    order.put(One(5, "acme", "acme1"))
    assert drained(order) == ["flood0", "acme0", "tiny0", "flood1", "acme1", "flood2", "flood3"]


def test_a_party_that_comes_back_does_not_jump_ahead() -> None:
    """Having been away earns no credit."""
    order: FairOrder[One] = FairOrder()
    order.put(One(5, "acme", "acme0"))
    for number in range(3):
        order.put(One(5, "flood", f"flood{number}"))
    assert [order.take().name for _ in range(3)] == ["acme0", "flood0", "flood1"]
    order.put(One(5, "acme", "acme1"))
    assert drained(order) == ["flood2", "acme1"]


def test_the_lowest_priority_moves_under_an_endless_stream_of_the_highest() -> None:
    """Every level with work is served at least once in eight takes for each level with work."""
    order: FairOrder[One] = FairOrder()
    for priority in range(2, LOWEST + 1):
        order.put(One(priority, "patient", f"p{priority}"))
    taken = []
    for _ in range(SHARED_TURN * LOWEST):
        order.put(One(1, "endless", "urgent"))
        taken.append(order.take().name)
    assert {f"p{priority}" for priority in range(2, LOWEST + 1)} <= set(taken)


@given(st.lists(st.tuples(st.integers(1, LOWEST), st.sampled_from("abc")), max_size=50))
def test_nothing_is_lost_and_nothing_doubled(puts: list[tuple[int, str]]) -> None:
    """What goes in comes out once."""
    order: FairOrder[One] = FairOrder()
    for number, (priority, party) in enumerate(puts):
        order.put(One(priority, party, str(number)))
    assert sorted(drained(order), key=int) == [str(number) for number in range(len(puts))]


def test_nothing_to_take() -> None:
    """Taking from an empty order is a mistake of the caller's."""
    with pytest.raises(IndexError):
        FairOrder[One]().take()


def test_no_trace_is_left_of_a_party_without_items() -> None:
    """10^6 third parties that each come once must not fill the memory."""
    order: FairOrder[One] = FairOrder()
    for number in range(100):
        order.put(One(5, f"party{number}", "x"))
    drained(order)
    assert all(not level._last and not level._ring for level in order._levels)
