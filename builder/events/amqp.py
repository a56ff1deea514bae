"""From the parts of an AMQP 0-9-1 message to events, in every encoding that real senders use.

::

    content type                       headers                           who
    application/cloudevents+json       whatever                          RabbitmqSource's senders, our own publisher
    application/cloudevents-batch+json whatever                          for completeness
    JSON, or none at all               id, source, type, specversion, …  Knative's RabbitMQ broker: bare names
                                       ce-id, ce-source, …               the CloudEvents SDK's RabbitMQ binding
                                       cloudEvents:id, cloudEvents_id, … the AMQP 1.0 binding

The content type decides the mode, as over HTTP, and what follows is the same code: the same message by either road
gives the same event or the same problems. Header values are text already, and never percent-encoded.

https://github.com/knative-extensions/eventing-rabbitmq/blob/main/cloudevents-protocol-spec/spec.md
https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/amqp-protocol-binding.md
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from builder.events.attributes import CORE, REQUIRED, is_name
from builder.events.headers import encodable
from builder.events.parsing import Mode, Parsed, finish_binary, read_content_type, read_formatted
from builder.events.problems import Found, key

_PREFIXES = ("ce-", "cloudevents:", "cloudevents_")
_CONTENT_TYPE = "content-type"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def parse_amqp(content_type: str | None, headers: Mapping[str, object] | None, body: bytes) -> Parsed:
    """The events of one message. Never raises: what cannot be read is a ``Rejected``.

    ``content_type`` is the message's property; Knative writes it among the headers. Values of ``headers`` are whatever
    AMQP has: text, bytes, numbers, booleans, timestamps, lists, tables.
    """
    headers = {} if headers is None else headers
    content_type = content_type_of(content_type, headers)
    mode, complaint = read_content_type(content_type)
    trace = _text(headers.get("traceparent"))
    if mode is not Mode.BINARY:
        return read_formatted(mode, content_type, complaint, body, trace)
    found: Found = {}
    attributes: dict[str, str] = {}
    prefixed = [(header, name) for header in headers if (name := _without_prefix(header)) is not None]
    for header, name in prefixed:
        _read_header(name, header, headers[header], attributes, found)
    if not prefixed:
        _read_bare(headers, attributes, found)
    return Parsed(mode, [finish_binary(content_type, complaint, attributes, found, body, trace)])


def content_type_of(content_type: str | None, headers: Mapping[str, object]) -> str:
    """The property, else the header, else what an event without any is taken for."""
    return content_type or _text(headers.get(_CONTENT_TYPE)) or "application/json"


def _without_prefix(header: str) -> str | None:
    """The attribute that a header names; None for one with another meaning."""
    lower = header.lower()
    return next((lower[len(prefix) :] for prefix in _PREFIXES if lower.startswith(prefix)), None)


def _read_bare(headers: Mapping[str, object], attributes: dict[str, str], found: Found) -> None:
    """Attributes without a prefix stand among headers of other meanings, which are left alone."""
    names = {header: header.lower() for header in headers}
    if not any(name in REQUIRED for name in names.values()):
        return
    for header, name in names.items():
        if name in CORE or (is_name(name) and isinstance(headers[header], str | bytes | bytearray | int | datetime)):
            _read_header(name, header, headers[header], attributes, found)


def _read_header(name: str, header: str, value: object, attributes: dict[str, str], found: Found) -> None:
    if name == "datacontenttype" or value is None:
        return  # the content type says it; and null is unset
    if name in attributes:
        found.setdefault(key(name), f"must not be sent twice: header {key(header)}")
    elif isinstance(value, str):
        attributes[name] = value
    elif isinstance(value, bytes | bytearray):
        _read_bytes(name, header, bytes(value), attributes, found)
    elif isinstance(value, bool):
        attributes[name] = "true" if value else "false"
    elif isinstance(value, int):
        attributes[name] = _read_number(name, header, value)
    elif isinstance(value, datetime):
        attributes[name] = (value if value.tzinfo is not None else value.replace(tzinfo=UTC)).isoformat()
    else:
        found.setdefault(key(name), "must be a string, a boolean or a whole number")


def _read_bytes(name: str, header: str, value: bytes, attributes: dict[str, str], found: Found) -> None:
    try:
        attributes[name] = value.decode()
    except UnicodeError:
        found.setdefault(key(name), f"must be UTF-8: header {key(header)}")
        attributes[name] = encodable(value.decode("utf-8", "surrogateescape"))


def _read_number(name: str, header: str, value: int) -> str:
    """A ``time`` of the AMQP binding is in milliseconds since 1970 (section 2.2)."""
    if name == "time" and header.lower().startswith("cloudevents"):
        try:
            return (_EPOCH + timedelta(milliseconds=value)).isoformat()
        except OverflowError:
            pass  # a moment outside the years 1 to 9999 is told as no timestamp
    return str(value)


def _text(value: object) -> str | None:
    """A header's text where it is any."""
    if isinstance(value, bytes | bytearray):
        return bytes(value).decode("utf-8", "replace")
    return value if isinstance(value, str) else None
