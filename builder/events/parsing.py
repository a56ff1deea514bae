"""From the parts of an HTTP request to events: the CloudEvents HTTP binding and its JSON formats.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md
https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md

::

    Content-Type                       mode        attributes        data
    application/cloudevents+json       structured  the JSON object   its ``data`` or ``data_base64``
    application/cloudevents-batch+json batch       each element      likewise
    JSON, or none at all               binary      ``ce-`` headers   the body

Content-Type alone decides, for a stray ``ce-`` header may stand on any request that passed through a broker.
"""

import base64
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from builder.errors import EventRejected, Problem
from builder.events.attributes import CORE, MAX_ATTRIBUTES, MAX_VALUE, is_name, is_traceparent, read_event
from builder.events.headers import encodable, read_attributes
from builder.events.json_text import parse_json
from builder.events.plain import plain_event
from builder.events.problems import Found, key, problems_from, quoted
from builder.models import Event

MAX_BATCH = 1000
"""Events in one batch. Each rejected one is answered and kept, so a megabyte of ``{},{},…`` must not pass."""

STRUCTURED_TYPE = "application/cloudevents+json"
BATCH_TYPE = "application/cloudevents-batch+json"

_NO_TYPE = "application/json"
"""What it means to send none: Knative does so for an event without datacontenttype."""

_WANTED = f"application/json with ce- headers, {STRUCTURED_TYPE} or {BATCH_TYPE}"
_JSON_TYPE = re.compile(r"(?:application|text)/json|[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+\+json")
_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


class Mode(StrEnum):
    """How the event lies in the message."""

    BINARY = "binary"
    STRUCTURED = "structured"
    BATCH = "batch"


@dataclass(frozen=True, slots=True)
class Rejected:
    """An event that is at fault, with all that is worth keeping of it.

    ``attributes`` are those that could be read, cut to a legal length. ``body`` is in ``content_type``: the data of a
    binary event, the whole JSON of a structured one. ``problems`` and ``status`` are what an ``EventRejected`` says.
    ``data`` is the event's data where that could be read: it may be wrong as well.
    """

    attributes: Mapping[str, str]
    content_type: str
    body: bytes
    problems: tuple[Problem, ...]
    status: int = 400
    data: bytes | None = None


Item: TypeAlias = Event | Rejected


class Parsed(NamedTuple):
    """What one request brought: one item, or for a batch as many as it has elements, in their order."""

    mode: Mode
    items: list[Item]


def parse_http(content_type: str | None, headers: Iterable[tuple[str, str]], body: bytes) -> Parsed:
    """The events of one HTTP request. Never raises: what cannot be read is a ``Rejected``.

    ``headers`` may be in any case and hold undecodable bytes as surrogates, which is how aiohttp gives them.
    """
    content_type = content_type or _NO_TYPE
    mode, complaint = read_content_type(content_type)
    if mode is Mode.BINARY:
        return Parsed(mode, [_read_binary(content_type, complaint, headers, body)])
    return read_formatted(mode, content_type, complaint, body, _traceparent(headers))


def parse_plain_http(content_type: str | None, headers: Mapping[str, str], body: bytes) -> Event | None:
    """The event of a request that ``plain_event`` can read; None of any other. All names are in lower case."""
    return plain_event(headers, body) if _is_good_binary(content_type or _NO_TYPE) else None


def read_formatted(mode: Mode, content_type: str, complaint: str | None, body: bytes, trace: str | None) -> Parsed:
    """The events of a message whose attributes stand in its body. ``trace`` is the ``traceparent`` beside it."""
    if complaint is not None:
        return Parsed(mode, [_rejected({}, content_type, body, {"Content-Type": complaint}, 415)])
    try:
        value = parse_json(body, "body")
        if mode is Mode.STRUCTURED:
            return Parsed(mode, [_read_structured(value, trace, body)])
        return Parsed(mode, [_read_structured(element, trace) for element in _elements(value)])
    except EventRejected as exc:
        return Parsed(mode, [Rejected({}, encodable(content_type), body, exc.problems, exc.status)])


# --- Content-Type -----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=128)
def read_content_type(content_type: str) -> tuple[Mode, str | None]:
    """The mode, and what is wrong with the type if anything is. Cached: senders have a handful of spellings."""
    media_type = content_type.partition(";")[0].strip().lower()
    mode = Mode.BINARY
    if media_type.startswith("application/cloudevents"):
        mode = Mode.BATCH if media_type == BATCH_TYPE else Mode.STRUCTURED
        known = media_type in {STRUCTURED_TYPE, BATCH_TYPE}
    else:
        known = is_json(content_type)
    if not known:
        return mode, f"{quoted(content_type)} is not taken; send {_WANTED}"
    if not _is_utf8(content_type):
        return mode, "must not name a charset other than utf-8"
    return mode, None


@lru_cache(maxsize=128)
def _is_good_binary(content_type: str) -> bool:
    mode, complaint = read_content_type(content_type)
    return mode is Mode.BINARY and complaint is None


def is_json(content_type: str) -> bool:
    """True if a media type, whatever its case and parameters, says JSON."""
    return _JSON_TYPE.fullmatch(content_type.partition(";")[0].strip().lower()) is not None


def _is_utf8(content_type: str) -> bool:
    for parameter in content_type.lower().split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip() == "charset" and value.strip().strip('"') not in {"utf-8", "utf8"}:
            return False
    return True


# --- binary -----------------------------------------------------------------------------------------------------------


def _read_binary(content_type: str, complaint: str | None, headers: Iterable[tuple[str, str]], body: bytes) -> Item:
    found: Found = {}
    trace = None
    sent: list[tuple[str, str]] = []
    for header, value in headers:
        name = header.lower()
        if name[:3] == "ce-":
            sent.append((name[3:], value))
        elif name == "traceparent":
            trace = value
    attributes = read_attributes(sent, found)
    return finish_binary(content_type, complaint, attributes, found, body, trace)


def finish_binary(
    content_type: str,
    complaint: str | None,
    attributes: dict[str, str],
    found: Found,
    body: bytes,
    trace: str | None,
) -> Item:
    """The event whose attributes stood beside its data, whatever the transport. ``found`` are the findings so far."""
    if complaint is not None:
        found["Content-Type"] = complaint
    elif not attributes and not found:
        found[""] = f"neither ce- headers nor a CloudEvents content type are there; send {_WANTED}"
    if len(attributes) > MAX_ATTRIBUTES:
        found["ce-"] = f"must not be more than {MAX_ATTRIBUTES} headers"
    _add_trace(trace, attributes)
    event = read_event(attributes, body, found)
    if event is not None:
        return event
    if complaint is not None:
        return _rejected(attributes, content_type, body, found, 415)
    return _rejected(attributes, content_type, body, found, data=body if attributes else None)


# --- structured and batch ---------------------------------------------------------------------------------------------


def _elements(value: object) -> list[object]:
    if not isinstance(value, list):
        raise EventRejected([Problem("body", "must be a JSON array of events")])
    if len(value) > MAX_BATCH:
        raise EventRejected([Problem("body", f"must not hold more than {MAX_BATCH} events")])
    return value


def _read_structured(value: object, trace: str | None, body: bytes | None = None) -> Item:
    """One event from its JSON. ``body`` is that JSON as it came; None where it came inside a batch."""
    found: Found = {}
    attributes: dict[str, str] = {}
    status, data = 400, None
    if not isinstance(value, dict):
        found["body"] = "must be a JSON object: a CloudEvent"
    elif len(value) > MAX_ATTRIBUTES:
        found["body"] = f"must not have more than {MAX_ATTRIBUTES} attributes"
    else:
        for name, member in value.items():
            _read_member(name, member, attributes, found)
        _add_trace(trace, attributes)
        data = _read_data(value, found)
        event = read_event(attributes, b"" if data is None else data, found)
        data_type = attributes.get("datacontenttype")
        if data_type is not None and not is_json(data_type):
            status = 400 if found else 415  # 415 where nothing else is wrong
            found["datacontenttype"] = f"{quoted(data_type)} is not taken; the data must be JSON"
            data = None
        elif event is not None:
            return event
    body = _encode_element(value) if body is None else body
    return _rejected(attributes, STRUCTURED_TYPE, body, found, status, data)


def _read_member(name: str, member: object, attributes: dict[str, str], found: Found) -> None:
    """JSON format, section 2.2: null is unset, booleans and integers have their canonical text."""
    if name in {"data", "data_base64"} or member is None:
        return
    if isinstance(member, str):
        attributes[name] = member
    elif name in CORE:
        found.setdefault(name, "must be a string")
    elif isinstance(member, bool):
        attributes[name] = "true" if member else "false"
    elif isinstance(member, int):
        attributes[name] = str(member)
    else:
        found.setdefault(key(name), "must be a string, a boolean or a whole number")


def _read_data(value: Mapping[str, object], found: Found) -> bytes | None:
    """The data's bytes, none at all where there is no data; None after adding to ``found`` what is wrong with it."""
    encoded = value.get("data_base64")
    if encoded is None:
        return _encode_data(value, found)
    if value.get("data") is not None:
        found.setdefault("data_base64", "must not stand beside data")
    elif isinstance(encoded, str):
        try:
            return base64.b64decode(encoded, validate=True)
        except ValueError:
            found.setdefault("data_base64", "must be base64 (RFC 4648, section 4)")
    else:
        found.setdefault("data_base64", "must be a string")
    return None


def _encode_data(value: Mapping[str, object], found: Found) -> bytes | None:
    if "data" not in value:
        return b""
    try:
        return _to_json(value["data"]).encode()
    except ValueError:
        found.setdefault("data", "must not hold a number that is too large for any program, such as 1e400")
        return None


def _encode_element(value: object) -> bytes:
    """A batch's element as it is kept. ``Infinity`` may stand where a number was too large for any program."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


# --- both -------------------------------------------------------------------------------------------------------------


def _traceparent(headers: Iterable[tuple[str, str]]) -> str | None:
    return next((value for name, value in headers if name.lower() == "traceparent"), None)


def _add_trace(trace: str | None, attributes: dict[str, str]) -> None:
    """The event's own trace is older than the hop's header and wins. A broken header is not the event's fault."""
    if trace is not None and "traceparent" not in attributes and is_traceparent(trace):
        attributes["traceparent"] = trace


def _rejected(
    attributes: Mapping[str, str],
    content_type: str,
    body: bytes,
    found: Found,
    status: int = 400,
    data: bytes | None = None,
) -> Rejected:
    readable = {name: value[:MAX_VALUE] for name, value in attributes.items() if is_name(name)}
    return Rejected(readable, encodable(content_type), body, problems_from(found), status, data)
