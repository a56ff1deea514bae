"""The text of an HTTP header, as senders of CloudEvents write it.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md#3132-http-header-values
"""

import re
from urllib.parse import unquote_to_bytes

_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
_ESCAPED = re.compile(r"\\(.)")


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
