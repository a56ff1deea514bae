"""JSON as the events may use it: RFC 8259 and I-JSON (RFC 7493), without what programs read differently.

jiter (the parser inside pydantic) does the work. It refuses by itself: invalid UTF-8, lone surrogates, ``NaN`` and
``Infinity``, duplicate keys (also where one is written with an escape), integers over 4300 digits (their conversion is
quadratic) and anything after the value. What it does not is added here: a depth that suits events, and clear words.
"""

import jiter

from builder.errors import EventRejected, Problem
from builder.events.problems import quoted

MAX_DEPTH = 64
"""Levels of objects and arrays in each other. 004's data has three."""

_WORDS = (
    ("unexpected end of hex escape", "half of a surrogate pair is no character"),
    ("lone leading surrogate", "half of a surrogate pair is no character"),
    ("invalid unicode code point", "the text is not valid UTF-8"),
    ("recursion limit exceeded", f"nested more than {MAX_DEPTH} levels deep"),
    ("number out of range", "the number has too many digits"),
)
_BOMS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")


def parse_json(text: bytes, field: str) -> object:
    """The value of one JSON text.

    A number that no double can hold, such as ``1e400``, becomes ``inf``: nobody reads a float of an event.

    Raises:
        EventRejected: the text is no JSON, or JSON that two programs could read in two ways. The problem stands under
            ``field`` and names line and column.
    """
    try:
        value: object = jiter.from_json(text, allow_inf_nan=False, catch_duplicate_keys=True, cache_mode="keys")
    except ValueError as exc:
        raise EventRejected([Problem(field, _plain_words(text, str(exc)))]) from exc
    # Counting is nearly free and answers for every honest event: what has few brackets cannot be deep.
    if text.count(b"{") + text.count(b"[") > MAX_DEPTH and _deeper_than(value, MAX_DEPTH):
        raise EventRejected([Problem(field, f"is JSON nested more than {MAX_DEPTH} levels deep")])
    return value


def _deeper_than(value: object, limit: int) -> bool:
    """True if there is a container ``limit`` levels below the outermost one. Level by level, so nothing recurses."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(limit):
        level = [
            child
            for container in level
            for child in (container.values() if isinstance(container, dict) else container)
            if isinstance(child, dict | list)
        ]
    return bool(level)


def _plain_words(text: bytes, said: str) -> str:
    """What jiter said, with its line and column, in words for a sender who never heard of jiter."""
    if not text.strip():
        return "is empty; a JSON text is wanted"
    if text.startswith(_BOMS):
        return "is not JSON in UTF-8 without a byte order mark (RFC 8259, section 8.1)"
    what, _, place = said.rpartition(" at line ")
    if what.startswith("Detected duplicate key "):
        name = what.removeprefix('Detected duplicate key "').removesuffix('"')
        return f"is JSON with the key {quoted(name)} twice in one object, at line {place}"
    for fragment, words in _WORDS:
        if what.startswith(fragment):
            return f"is not JSON that we take: {words}, at line {place}"
    return f"is not JSON: {what}, at line {place}"
