"""How people ask for dead letters, and how they see them."""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from math import isfinite
from typing import Any

from builder.errors import EventRejected, Problem
from builder.flow.dead_letters import Replayed
from builder.flow.ports import LetterFilter
from builder.models import DeadLetter, FailureReason, RejectReason

MASK = "***"
PAGE = 100

_PASSWORD = re.compile(r"(://)(?:[^\s/?#]*|[^\s/?#:]*:\S*)@")
"""A URL's user-info: all up to the last @ before the path, or after a colon, for not every password is escaped."""

_REASONS = tuple(reason.value for reason in (*RejectReason, *FailureReason))
_WORDS = ("type", "third_party_id")
_TIMES = ("since", "until")
_REPLAYED = ("true", "false")
_NUMBERS = ("limit", "before")
_KNOWN = frozenset({*_WORDS, *_TIMES, "reason", "replayed", *_NUMBERS})


def read_query(query: Mapping[str, str], more_reasons: Sequence[str] = ()) -> tuple[LetterFilter, int]:
    """The filter, and how many letters at the most: ``limit`` of a query, 100 unless it says less.

    Raises:
        EventRejected: names each parameter that is wrong.
    """
    problems = [
        Problem(name, f"is no parameter; there are {', '.join(sorted(_KNOWN))}") for name in sorted({*query} - _KNOWN)
    ]
    times = {name: _time(query[name]) for name in _TIMES if name in query}
    problems += [
        Problem(name, "must be a time such as 2024-01-01T00:00:00Z") for name, at in times.items() if at is None
    ]
    problems += [
        Problem(name, f"must be one of {', '.join(choices)}")
        for name, choices in (("reason", (*_REASONS, *more_reasons)), ("replayed", _REPLAYED))
        if query.get(name, choices[0]) not in choices
    ]
    numbers = {name: query[name] for name in _NUMBERS if name in query}
    problems += [Problem(name, "must be a whole number from 1") for name, text in numbers.items() if not _number(text)]
    if problems:
        raise EventRejected(problems)
    wanted = LetterFilter(
        reason=query.get("reason"),
        type=query.get("type"),
        third_party_id=query.get("third_party_id"),
        since=times.get("since"),
        until=times.get("until"),
        replayed=None if "replayed" not in query else query["replayed"] == "true",
        before=_number(numbers["before"]) if "before" in numbers else None,
    )
    return wanted, min(PAGE, _number(numbers.get("limit", str(PAGE))))


def _time(text: str) -> datetime | None:
    """A moment; UTC where it names no offset. In a query string a plus sign has become a space."""
    try:
        at = datetime.fromisoformat(text.replace(" ", "+"))
    except ValueError:
        return None
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)


def _number(text: str) -> int:
    """Of at most 18 digits, which SQLite can hold; 0 for anything else."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 18 else 0  # noqa: PLR2004


def page(letters: Sequence[DeadLetter], limit: int) -> dict[str, Any]:
    """Letters as a page of JSON, and the ``before`` of the page after it, where there may be one."""
    following = letters[-1].id if len(letters) == limit else None
    return {"items": [document(letter) for letter in letters], "next_before": following}


def report_document(report: Replayed) -> dict[str, Any]:
    """What became of the letters that were replayed together."""
    rejected = [{"id": letter_id, "message": message} for letter_id, message in report.rejected.items()]
    until = report.until.isoformat()
    return {"queued": report.queued, "rejected": rejected, "stopped": report.stopped, "until": until}


def document(letter: DeadLetter, *, with_data: bool = False) -> dict[str, Any]:
    """The letter as JSON; its data only where that is asked for, and ``masked``."""
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


def masked(data: bytes | str) -> Any:
    """The data as JSON without passwords in URLs and values of any ``environment``; only its size if it is no JSON."""
    try:
        return _hidden(json.loads(data, parse_constant=str, parse_float=_float))
    except (ValueError, RecursionError):
        return f"{len(data)} bytes that are no JSON"


def _float(text: str) -> float | str:
    """As text where it would be ``Infinity``, which is no JSON."""
    number = float(text)
    return number if isfinite(number) else text


def _hidden(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _hidden_member(name, member) for name, member in value.items()}
    if isinstance(value, list):
        return [_hidden(member) for member in value]
    if isinstance(value, str):
        # JSON in a string, as senders write it by mistake.
        return masked(value) if value.lstrip()[:1] in ("{", "[") else _PASSWORD.sub(rf"\1{MASK}@", value)
    return value


def _hidden_member(name: str, member: Any) -> Any:
    if name.lower() == "environment":
        return _blank(member)
    if name == "data_base64" and isinstance(member, str):
        try:
            return masked(base64.b64decode(member))
        except ValueError:
            return MASK
    return _hidden(member)


def _blank(value: Any) -> Any:
    """Only the names are left of it."""
    if isinstance(value, dict):
        return {name: _blank(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_blank(member) for member in value]
    return MASK
