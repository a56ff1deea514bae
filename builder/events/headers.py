"""The text of an HTTP header, as senders of CloudEvents write it.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md#3132-http-header-values
"""

import re
from collections.abc import Sequence
from urllib.parse import unquote_to_bytes

from builder.events.problems import Found, key

_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_ESCAPED = re.compile(r"\\(.)")


def read_attributes(sent: Sequence[tuple[str, str]], found: Found) -> dict[str, str]:
    """The attributes that stand in headers, whose names come without ``ce-``."""
    attributes = dict(sent)
    # Nearly always each stands there once and means what it says, and nothing needs a closer look.
    if len(attributes) < len(sent) or "datacontenttype" in attributes or not is_plain("".join(attributes.values())):
        attributes = {}
        for name, value in sent:
            _read_header(name, value, attributes, found)
    return attributes


def _read_header(name: str, value: str, attributes: dict[str, str], found: Found) -> None:
    if name == "datacontenttype":
        return  # in binary mode Content-Type says it (HTTP binding, section 3.1.1)
    if name in attributes:
        found.setdefault(key(name), f"must not be sent twice: header ce-{key(name)}")
        return
    try:
        attributes[name] = decode_header(value)
    except UnicodeError:
        found.setdefault(key(name), f"must be UTF-8: header ce-{key(name)}")
        attributes[name] = encodable(value)


def decode_header(value: str) -> str:
    """An attribute's text from its header, whose undecodable bytes are surrogates (that is how aiohttp gives them).

    Double quotes come off first (RFC 7230, section 3.2.6), then percent-encoding, once. A ``%`` that begins no escape
    stays, and so does raw UTF-8, for Knative sends values as they are.

    Raises:
        UnicodeError: the bytes are no UTF-8.
    """
    if is_plain(value):
        return value  # nearly all of them
    if _QUOTED.fullmatch(value):
        value = _ESCAPED.sub(r"\1", value[1:-1])
    return unquote_to_bytes(value).decode()


def is_plain(value: str) -> bool:
    """True for a header, or several of them joined, that is its attribute's text already."""
    return "%" not in value and '"' not in value and value.isascii()


def encodable(text: str) -> str:
    """The same with ``?`` for each byte that was no UTF-8, so that a dead letter can hold it."""
    return text.encode("utf-8", "replace").decode()
