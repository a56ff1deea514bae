"""How people ask for dead letters, and how they see them."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from builder.errors import EventRejected, Problem
from builder.flow.ports import LetterFilter
from builder.models import DeadLetter

MASK = "***"
PAGE = 100

_WORDS = ("reason", "type", "third_party_id")
_TIMES = ("since", "until")
_NUMBERS = ("limit", "before")
_KNOWN = frozenset({*_WORDS, *_TIMES, *_NUMBERS, "replayed"})


def read_query(query: Mapping[str, str]) -> tuple[LetterFilter, int]:
    """The filter, and how many letters at the most: ``limit`` of a query, 100 unless it says less.

    Raises:
        EventRejected: names each parameter that is wrong.
    """
    problems = [Problem(name, "is no parameter here") for name in query if name not in _KNOWN]
    times = {name: _time(query[name]) for name in _TIMES if name in query}
    problems += [
        Problem(name, "must be a time such as 2024-01-01T00:00:00Z") for name, at in times.items() if at is None
    ]
    numbers = {name: query[name] for name in _NUMBERS if name in query}
    problems += [Problem(name, "must be a whole number") for name, text in numbers.items() if not _is_number(text)]
    if problems:
        raise EventRejected(problems)
    wanted = LetterFilter(
        reason=query.get("reason"),
        type=query.get("type"),
        third_party_id=query.get("third_party_id"),
        since=times.get("since"),
        until=times.get("until"),
        replayed=None if "replayed" not in query else query["replayed"] == "true",
        before=int(numbers["before"]) if "before" in numbers else None,
    )
    return wanted, min(PAGE, max(1, int(numbers.get("limit", PAGE))))


def _time(text: str) -> datetime | None:
    """A moment; UTC where it names no offset. In a query string a plus sign has become a space."""
    try:
        at = datetime.fromisoformat(text.replace(" ", "+"))
    except ValueError:
        return None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 18  # noqa: PLR2004 -- what SQLite can hold


def document(letter: DeadLetter, *, with_data: bool = False) -> dict[str, Any]:
    """The letter as JSON; its data only where that is asked for, and without the values of any ``environment``."""
    shown: dict[str, Any] = {
        "id": letter.id,
        "reason": letter.reason.value,
        "error": letter.error or None,
        "message": letter.message,
        "errors": [{"field": one.field, "message": one.message} for one in letter.problems],
        "event": dict(letter.attributes),
        "third_party_id": letter.third_party_id,
        "attempts": letter.attempts,
        "first_at": letter.first_at.isoformat(),
        "last_at": letter.last_at.isoformat(),
        "replayed_at": None if letter.replayed_at is None else letter.replayed_at.isoformat(),
        "content_type": letter.content_type,
        "body_bytes": len(letter.body),
    }
    if with_data:
        shown["data"] = masked(letter.body)
    return shown


def masked(body: bytes) -> Any:
    """The data as JSON without the values of any ``environment``; only its size where it is no JSON."""
    try:
        return _hidden(json.loads(body), within=False)
    except (ValueError, RecursionError):
        return f"{len(body)} bytes that are no JSON"


def _hidden(value: Any, *, within: bool) -> Any:
    if isinstance(value, dict):
        return {name: _hidden(member, within=within or name == "environment") for name, member in value.items()}
    if isinstance(value, list):
        return [_hidden(member, within=within) for member in value]
    return MASK if within else value
