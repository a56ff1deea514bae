"""A message of the dead letter queue, seen as a dead letter, whoever put it there."""

import json
from typing import Any

from builder.flow.broker_letters import BrokerLetter
from builder.flow.letter_headers import LetterKind, LetterNote, write_note
from tests import building

NOTE = write_note(
    LetterNote(LetterKind.FAILED, "quota", "no room", "QuotaExceeded 403", 3, building.NOON, building.NOON, "x", "k")
)
DEATHS: list[dict[str, Any]] = [
    {"reason": "rejected", "queue": "second", "count": 1, "exchange": "dlx", "routing-keys": ["k2"]},
    {"reason": "expired", "queue": "first", "count": 4, "exchange": "cloud-events", "routing-keys": ["k1"]},
]


def letter(headers: dict[str, Any], body: bytes = json.dumps(building.EXAMPLE).encode()) -> BrokerLetter:
    return BrokerLetter(body, "application/cloudevents+json", "m-1", headers)


def test_our_note_says_it() -> None:
    """Before anything that the broker noted."""
    ours = letter({**NOTE, "x-death": DEATHS})
    shown = ours.document()
    assert (shown["reason"], shown["message"], shown["error"], shown["attempts"]) == (
        "quota",
        "no room",
        "QuotaExceeded 403",
        3,
    )
    assert (shown["event"]["id"], shown["third_party_id"]) == ("e-1", building.THIRD_PARTY)
    assert ours.route == ("x", "k")


def test_the_broker_says_it() -> None:
    """The latest death is the reason, the first one the road that the message came by."""
    its = letter({"x-death": DEATHS})
    shown = its.document()
    assert (shown["reason"], shown["message"]) == ("rejected", "a consumer, not of this service, rejected it")
    assert its.route == ("cloud-events", "k1")
    assert shown["deaths"] == [
        {"reason": "rejected", "queue": "second", "count": 1},
        {"reason": "expired", "queue": "first", "count": 4},
    ]


def test_nobody_says_it() -> None:
    """It is shown all the same, and cannot be replayed."""
    bare = letter({}, b"\xff")
    shown = bare.document(with_data=True)
    assert (shown["reason"], shown["message"], shown["event"]) == ("unknown", "nothing says why", {})
    assert shown["data"] == "1 bytes that are no JSON"
    assert bare.route is None


def test_the_id_is_of_the_message() -> None:
    """Looking at it changes nothing; another message, or the same after a replay, is another letter."""
    assert letter({**NOTE, "x-delivery-count": 7}).id == letter(NOTE).id
    assert letter({**NOTE, "replayed": "2024"}).id != letter(NOTE).id
    assert letter(NOTE, b"{}").id != letter(NOTE).id
    assert len(letter(NOTE).id) == 12


def test_a_batch_of_none() -> None:
    """Whatever a stranger put there, the list goes on."""
    empty = BrokerLetter(b"[]", "application/cloudevents-batch+json", None, {})
    assert empty.document()["reason"] == "unknown"
