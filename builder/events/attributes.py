"""What the attributes of a CloudEvent may be, whatever brought them.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md#context-attributes

Nothing is ever invented here: an event without an ``id`` cannot be told from its own redelivery.
"""

import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from builder.events.problems import Found, key
from builder.models import Event

REQUIRED = ("specversion", "id", "source", "type")
CORE = frozenset({*REQUIRED, "subject", "time", "dataschema", "datacontenttype"})

MAX_ATTRIBUTES = 64
MAX_VALUE = 1024
"""Characters. The specification asks intermediaries to carry 64 KiB per event; an honest id has 36."""

_NAME = re.compile(r"[a-z0-9]{1,64}")
# Controls, half surrogates, and the noncharacters: 32 of them in one block, and the last two of each of the 17 planes.
_NOT_TEXT = re.compile(
    "[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef{}]".format(
        "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
    )
)
_URI_REFERENCE = re.compile(r'[^\s<>"{}|\\^`]+')
_ABSOLUTE_URI = re.compile(r'[A-Za-z][A-Za-z0-9+.-]*:[^\s<>"{}|\\^`]+')
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)", re.ASCII)
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def read_event(attributes: Mapping[str, str], data: bytes, found: Found) -> Event | None:
    """The event, or None after adding to ``found`` what is wrong with each attribute.

    ``attributes`` holds every attribute but ``datacontenttype``, as text. ``found`` may hold earlier findings, and
    any at all, early or new, mean that there is no event.
    """
    _check_required(attributes, found)
    source, subject = attributes.get("source"), attributes.get("subject")
    if source and not is_uri_reference(source):
        found.setdefault("source", 'must be a URI reference: no spaces and none of < > " { } | \\ ^ `')
    if subject == "":
        found.setdefault("subject", "must not be empty; leave it out")
    time = _read_time(attributes["time"], found) if "time" in attributes else None
    schema = attributes.get("dataschema")
    if schema is not None and not _ABSOLUTE_URI.fullmatch(schema):
        found.setdefault("dataschema", "must be an absolute URI, such as https://example.com/schema/v1")
    extensions = {name: value for name, value in attributes.items() if name not in CORE}
    for name in extensions:
        _check_extension_name(name, found)
    # Nearly always all of them together are short printable ASCII, and none needs a closer look.
    values = "".join(attributes.values())
    if not (values.isascii() and values.isprintable() and len(values) <= MAX_VALUE):
        for name, value in attributes.items():
            _check_text(name, value, found)
    if found:
        return None
    # The same few sources and types on every event: one copy each for a long queue.
    source, event_type = sys.intern(attributes["source"]), sys.intern(attributes["type"])
    return Event(attributes["id"], source, event_type, subject, time, extensions, data)


@lru_cache(maxsize=1024)
def is_uri_reference(text: str) -> bool:
    """True for what ``source`` may be. Cached: senders have few."""
    return _URI_REFERENCE.fullmatch(text) is not None


def _check_required(attributes: Mapping[str, str], found: Found) -> None:
    get = attributes.get
    if get("specversion") == "1.0" and get("id") and get("source") and get("type"):
        return
    for name in REQUIRED:
        if not attributes.get(name):
            problem = "must not be empty" if name in attributes else "is missing; every CloudEvent has one"
            found.setdefault(name, problem)
    if attributes.get("specversion", "1.0") != "1.0":
        found.setdefault("specversion", "must be 1.0")


def is_name(name: str) -> bool:
    """True for what an attribute may be called: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md#naming-conventions."""
    return _NAME.fullmatch(name) is not None


def _check_extension_name(name: str, found: Found) -> None:
    if not is_name(name):
        found.setdefault(key(name), "is no attribute name: 1 to 64 lower-case letters and digits")
    elif name == "data":
        found.setdefault(name, "is the event's content and no attribute")


def _check_text(name: str, value: str, found: Found) -> None:
    """https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md#type-system (String)."""
    if len(value) > MAX_VALUE:
        found.setdefault(key(name), f"must have at most {MAX_VALUE} characters")
    elif _NOT_TEXT.search(value):
        found.setdefault(key(name), "must not hold control characters, half surrogates or Unicode noncharacters")


def _read_time(text: str, found: Found) -> datetime | None:
    try:
        return parse_time(text)
    except ValueError as exc:
        found.setdefault("time", str(exc))
        return None


def parse_time(text: str) -> datetime:
    """The moment, in UTC, that an RFC 3339 timestamp names.

    Digits beyond the microsecond are cut; a leap second is the first moment of the next minute.

    Raises:
        ValueError: not of the form, without offset, or no such date.
    """
    if len(text) <= MAX_VALUE and _TIME.fullmatch(text):
        try:
            if text[17:19] != "60":
                moment = datetime.fromisoformat(text.upper())
                return moment if moment.tzinfo is UTC else moment.astimezone(UTC)
            return datetime.fromisoformat(f"{text[:17]}59{text[19:]}".upper()).astimezone(UTC) + timedelta(seconds=1)
        except (ValueError, OverflowError):
            pass  # 31 February, or a moment outside the years 1 to 9999
    msg = "must be an RFC 3339 timestamp with offset, such as 2024-01-01T00:00:00Z"
    raise ValueError(msg)


def is_traceparent(text: str) -> bool:
    """True for a valid value of the W3C header: https://www.w3.org/TR/trace-context/#traceparent-header."""
    return _TRACEPARENT.fullmatch(text) is not None


def trace_id(traceparent: str) -> str | None:
    """The trace's id in it, 32 hexadecimal digits; None if it is not valid."""
    return traceparent[3:35] if is_traceparent(traceparent) else None
