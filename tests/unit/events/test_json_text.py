"""What one JSON text may be, and what jiter does of it by itself."""

import gc
import json
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import EventRejected, Problem
from builder.events.json_text import MAX_DEPTH, parse_json


def problem_of(text: bytes) -> Problem:
    with pytest.raises(EventRejected) as caught:
        parse_json(text, "data")
    assert caught.value.status == 400
    (problem,) = caught.value.problems
    return problem


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'{"a": [1, -2.5, true, null, "x"]}\n', {"a": [1, -2.5, True, None, "x"]}),
        (rb'"\ud83d\ude00"', "😀"),
        (rb'"\u0000"', "\0"),
        ('"😀"'.encode(), "😀"),
        (b"-0", 0),
        (b"9007199254740993", 9007199254740993),
    ],
)
def test_reads_what_json_says(text: bytes, value: object) -> None:
    """Good JSON keeps its meaning: integers are exact, pairs of escapes are one character."""
    assert parse_json(text, "data") == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "is empty; a JSON text is wanted"),
        (b" \n", "is empty; a JSON text is wanted"),
        (b"{", "is not JSON: EOF while parsing an object, at line 1 column 1"),
        (b"[1,]", "is not JSON: trailing comma, at line 1 column 4"),
        (b"{}\n{}", "is not JSON: trailing characters, at line 2 column 1"),
        (b"{} \x00", "is not JSON: trailing characters, at line 1 column 4"),
        (b"{'a': 1}", "is not JSON: key must be a string, at line 1 column 2"),
        (b"01", "is not JSON: invalid number, at line 1 column 2"),
        (
            b'"a\nb"',
            "is not JSON: control character (\\u0000-\\u001F) found while parsing a string, at line 2 column 0",
        ),
        (b'{"a": NaN}', "is not JSON: expected value, at line 1 column 7"),
        (b"Infinity", "is not JSON: expected value, at line 1 column 1"),
        (b"-Infinity", "is not JSON: invalid number, at line 1 column 2"),
        (b'"\xff"', "is not JSON that we take: the text is not valid UTF-8, at line 1 column 2"),
        (b'"\xc0\xa0"', "is not JSON that we take: the text is not valid UTF-8, at line 1 column 2"),
        (b'"\xed\xa0\x80"', "is not JSON that we take: the text is not valid UTF-8, at line 1 column 2"),
        (rb'"\ud800"', "is not JSON that we take: half of a surrogate pair is no character, at line 1 column 8"),
        (rb'{"\udc00": 1}', "is not JSON that we take: half of a surrogate pair is no character, at line 1 column 8"),
        (b"\xef\xbb\xbf{}", "is not JSON in UTF-8 without a byte order mark (RFC 8259, section 8.1)"),
        ("{}".encode("utf-16"), "is not JSON in UTF-8 without a byte order mark (RFC 8259, section 8.1)"),
        (b'{"a": 1, "a": 2}', 'is JSON with the key "a" twice in one object, at line 1 column 14'),
        (rb'{"a": 1, "\u0061": 2}', 'is JSON with the key "a" twice in one object, at line 1 column 19'),
        (b"1" * 5000, "is not JSON that we take: the number has too many digits, at line 1 column 4302"),
    ],
)
def test_names_what_is_wrong_and_where(text: bytes, message: str) -> None:
    """A sender learns what to change without knowing our parser; nothing is read leniently."""
    assert problem_of(text) == Problem("data", message)


def test_a_hostile_key_is_shown_escaped_and_cut() -> None:
    """What a sender chose cannot write into a terminal or fill a log."""
    text = json.dumps("\x1b[31m" + "x" * 500).encode()
    message = problem_of(b"{" + text + b": 1, " + text + b": 2}").message
    assert message.startswith('is JSON with the key "\\\\u{1b}[31mxxx')
    assert len(message) < 200
    assert message.isprintable()


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_depth_is_bounded(opening: bytes, closing: bytes) -> None:
    """No depth that could exhaust a stack further on, here or in whoever reads a dead letter."""
    parse_json(opening * MAX_DEPTH + b"1" + closing * MAX_DEPTH, "data")
    for depth in (MAX_DEPTH + 1, 150, 201, 100_000):
        message = problem_of(opening * depth + b"1" + closing * depth).message
        assert f"nested more than {MAX_DEPTH} levels deep" in message


def test_brackets_alone_are_not_depth() -> None:
    """Many objects side by side, or brackets in text, are fine."""
    text = b"[" + b",".join([b'{"a": "[[[[{{{{"}'] * 1000) + b"]"
    assert parse_json(text, "data") == [{"a": "[[[[{{{{"}] * 1000


def seconds_to_parse(text: bytes) -> float:
    """The least of three, of this thread's own processor time: no pass over other tests' objects is in it."""
    taken = []
    gc.disable()
    try:
        for _ in range(3):
            began = time.thread_time()
            with suppress(EventRejected):
                parse_json(text, "data")
            taken.append(time.thread_time() - began)
    finally:
        gc.enable()
    return min(taken)


@pytest.mark.parametrize(
    "text",
    [
        b"1" * 2**20,
        b"[" + b",".join([b"1" * 4300] * 240) + b"]",
        b"[" + b",".join([b"[]"] * 300_000) + b"]",
        b"{" + b",".join(b'"%d":1' % number for number in range(80_000)) + b"}",
        b'"' + b"\\" * 2**20,
    ],
    ids=["one-long-integer", "long-integers", "brackets", "keys", "backslashes"],
)
def test_a_megabyte_costs_what_an_honest_one_does(text: bytes) -> None:
    """No body makes the event loop stand still: Python's own int() needs 170 times as long for the first one."""
    honest = json.dumps([{"name": f"parser{number}", "priority": number} for number in range(25_000)]).encode()
    assert len(honest) > 2**20
    assert seconds_to_parse(text) < 20 * seconds_to_parse(honest)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(json_values)
def test_agrees_with_the_standard_library(value: object) -> None:
    """For everything that json can write, both read the same."""
    assert parse_json(json.dumps(value).encode(), "data") == value


@given(st.binary() | st.text().map(str.encode))
def test_no_bytes_break_it(text: bytes) -> None:
    """Any bytes are a value or a rejection."""
    try:
        parse_json(text, "data")
    except EventRejected as exc:
        assert len(exc.problems) == 1  # noqa: PT017 -- either way is right
