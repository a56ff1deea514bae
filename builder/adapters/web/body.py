"""The body of a request, whole and bounded, however it was framed and coded."""

import asyncio
import zlib

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from builder.errors import EventRejected, Problem
from builder.events.problems import quoted

_GZIP_ONLY = 31
"""zlib's word for "with a gzip header and checksum"."""


def decoded(body: bytes, coding: str | None, limit: int) -> bytes:
    """A body without its Content-Encoding; what comes out is never much more than ``limit``.

    Raises:
        EventRejected: 413 if it is larger, 415 for a coding that we do not take, 400 if it is not what its headers say.
    """
    if len(body) > limit:
        raise _too_large(limit)
    if coding is None:
        return body
    match coding.lower():
        case "identity":
            return body
        case "gzip" | "x-gzip":
            return _gunzip(body, limit)
    # https://www.rfc-editor.org/rfc/rfc9110#section-8.4
    raise EventRejected([Problem("Content-Encoding", f"{quoted(coding)} is not taken; send gzip or none")], 415)


async def read_body(request: web.BaseRequest, limit: int, patience: float) -> bytes:
    """What was sent. ``patience`` is how many seconds the sender may take for it.

    Raises:
        EventRejected: 413 as soon as the announced or the real size passes the limit, 400 for broken framing.
        web.HTTPRequestTimeout: the sender took longer.
        web.HTTPExpectationFailed: the sender expects something that we do not know.
    """
    if request.content_length is not None and request.content_length > limit:
        raise _too_large(limit)
    # https://www.rfc-editor.org/rfc/rfc9110#section-10.1.1; who has sent the body already needs no answer
    expected = request.headers.get("Expect", "").lower()
    if expected not in {"", "100-continue"}:
        raise web.HTTPExpectationFailed
    if expected:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    try:
        async with asyncio.timeout(patience):
            return await request.read()
    except TimeoutError:
        reason = f"the body did not come within {patience:g} seconds (setting intake.bodyTimeout)"
        raise web.HTTPRequestTimeout(reason=reason) from None
    except web.HTTPRequestEntityTooLarge:
        raise _too_large(limit) from None
    except (web.RequestPayloadError, HttpProcessingError) as exc:  # by aiohttp's parser in C, and by the one in Python
        raise EventRejected([Problem("body", "is not framed as the Transfer-Encoding header says")]) from exc


def _gunzip(body: bytes, limit: int) -> bytes:
    """A bomb is stopped at its first byte over the limit."""
    decoder = zlib.decompressobj(_GZIP_ONLY)
    try:
        plain = decoder.decompress(body, limit + 1)
    except zlib.error as exc:
        raise EventRejected([Problem("body", "is not gzip, as the Content-Encoding header says")]) from exc
    if len(plain) > limit:
        raise _too_large(limit)
    if not decoder.eof or decoder.unused_data:
        raise EventRejected([Problem("body", "is not one whole gzip stream, as the Content-Encoding header says")])
    return plain


def _too_large(limit: int) -> EventRejected:
    return EventRejected([Problem("body", f"must not be larger than {limit} bytes (setting intake.maxBodySize)")], 413)
