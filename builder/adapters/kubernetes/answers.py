"""What an answer of the API server means to us: one table per operation, and the words for the error."""

import json
import re
from collections.abc import Container, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from builder.errors import AlreadyExists, ClusterError, Conflict, Denied, QuotaExceeded, Transient

_MESSAGE_START, _MESSAGE_END = 350, 150


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, read to its end. ``retry_after`` is the header of that name, as it came."""

    status: int
    phrase: str
    body: bytes
    retry_after: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """True for a 2xx."""
        return self.status in range(200, 300)


@dataclass(frozen=True, slots=True)
class Rule:
    """The error for an answer; ``reason`` is the Status object's, ``words`` stand in its message."""

    statuses: Container[int]
    error: type[ClusterError]
    reason: str | None = None
    words: str = ""


_ANY_CALL: Final = (
    Rule({403}, QuotaExceeded, words="exceeded quota"),
    # A new quota whose use is not counted yet: CheckRequest in k8s.io/apiserver's admission/plugin/resourcequota.
    Rule({403}, QuotaExceeded, words="status unknown for quota"),
    Rule({408, 429}, Transient),
    Rule(range(500, 600), Transient),
    # Everything else, a redirect to some login page included, is answered the same however often it is asked.
    Rule(range(1000), Denied),
)
CREATE: Final = (
    Rule({409}, AlreadyExists, reason="AlreadyExists"),
    # "Operation cannot be fulfilled on resourcequotas": many creates at once counted against one quota.
    Rule({409}, Transient),
    *_ANY_CALL,
)
DELETE: Final = (Rule({409}, Conflict), *_ANY_CALL)
READ: Final = _ANY_CALL


def error_for(answer: Answer, rules: tuple[Rule, ...]) -> ClusterError:
    """The error of the first rule that fits, in the API server's own words."""
    status = json_object(answer.body)
    reason = None if status is None else status.get("reason")
    message = _message(answer, status)
    fitting = (
        rule.error
        for rule in rules
        if answer.status in rule.statuses and rule.reason in (None, reason) and rule.words in message
    )
    retry_after = retry_after_seconds(answer.retry_after, datetime.now(UTC))
    return next(fitting)(readable(message), status=answer.status, retry_after=retry_after)


def json_object(body: bytes) -> dict[str, Any] | None:
    """The JSON object that the bytes are, or None if they are anything else: plain text, a list, half an answer."""
    try:
        value = json.loads(body)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _message(answer: Answer, status: dict[str, Any] | None) -> str:
    """A Status object's message, else the body's text (a proxy's, or flow control's), else the status in words."""
    text = answer.body.decode(errors="replace") if status is None else status.get("message")
    return text if isinstance(text, str) and text.strip() else f"{answer.status} {answer.phrase}"


def readable(text: str) -> str:
    """One line for a log: about 500 characters at the most, and nothing in it that a terminal would obey.

    What is too much is cut out of the middle, for the API server names the object first and the reason last.
    """
    return _cut("".join(char if char.isprintable() else ascii(char)[1:-1] for char in _cut(text.strip())))


def _cut(text: str) -> str:
    if len(text) <= _MESSAGE_START + _MESSAGE_END:
        return text
    return f"{text[:_MESSAGE_START]} … {text[-_MESSAGE_END:]}"


def retry_after_seconds(value: str | None, now: datetime) -> float | None:
    """Seconds from a Retry-After header, which is a number or a date; None for anything else.

    https://www.rfc-editor.org/rfc/rfc9110#field.retry-after
    """
    if value is None:
        return None
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    # A date without a zone ("-0000") is UTC: https://www.rfc-editor.org/rfc/rfc5322#section-3.3
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - now).total_seconds())


def warnings(headers: Iterable[str]) -> tuple[str, ...]:
    """The texts in ``Warning`` headers, which are ``299 - "text"``.

    https://kubernetes.io/blog/2020/09/03/warnings
    """
    found = (re.fullmatch(r'299 \S+ "(.*)"', header) for header in headers)
    return tuple(readable(re.sub(r"\\(.)", r"\1", match[1])) for match in found if match)
