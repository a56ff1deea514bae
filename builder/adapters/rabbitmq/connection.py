"""Connections to the broker, and what it says when there is none, in plain words without the password."""

import asyncio
import logging
import os
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import aio_pika
from aio_pika.abc import AbstractConnection, TimeoutType
from aiormq.exceptions import (
    AMQPConnectionError,
    AMQPError,
    AuthenticationError,
    ChannelInvalidStateError,
    InvalidFrameError,
    ProbableAuthenticationError,
)
from yarl import URL

from builder.errors import BrokerAway, BrokerDenied, BrokerError, Problem, SettingsError
from builder.rabbitmq_settings import Rabbitmq, Tls

_SILENT = "the connection to the broker was lost: no sign of life for too long"
_CLOSED = "the connection to the broker is closed"


class _Connection(aio_pika.Connection):
    """Closes itself where it does not come about. Else the garbage collector would, which may run in any thread."""

    async def connect(self, timeout: TimeoutType = None) -> None:  # noqa: ASYNC109 -- aio-pika's own signature
        """See ``aio_pika.Connection``."""
        try:
            await super().connect(timeout)
        except BaseException:
            await self.close()
            raise


async def connect(settings: Rabbitmq, name: str = "knative-lambda-builder") -> AbstractConnection:
    """A connection to the first broker of ``rabbitmq.url`` that has us. ``name`` is what the broker's people see.

    Raises:
        SettingsError: no URL is set, or a file of ``rabbitmq.tls`` cannot be used.
        BrokerDenied: one that answered will not have us.
        BrokerAway: none answers.
    """
    _silence()
    if not settings.urls:
        raise SettingsError([Problem("rabbitmq.url", "is not set: say which broker (BUILDER_RABBITMQ__URL)")])
    errors = []
    for url in settings.urls:
        try:
            return await _connect(url, settings, name)
        except BrokerError as exc:
            errors.append(exc)
    # One that answers and refuses says more than those that are away.
    raise next((error for error in errors if isinstance(error, BrokerDenied)), errors[-1])


@asynccontextmanager
async def connected(settings: Rabbitmq, name: str = "knative-lambda-builder") -> AsyncIterator[AbstractConnection]:
    """As ``connect``, closed at the end."""
    connection = await connect(settings, name)
    try:
        yield connection
    finally:
        await connection.close()


@contextmanager
def plain_words() -> Iterator[None]:
    """Turns what aio-pika raises when a connection or channel breaks into a ``BrokerError``.

    When a connection ends, aiormq hands whatever ended it to all who wait for an answer: a bare ``Exception`` where we
    closed it ourselves, and a ``CancelledError`` where its reader was cancelled because the other side was silent.

    Raises:
        BrokerAway: the connection is gone.
        BrokerError: the broker closed the channel, for the reason that the message has.
    """
    try:
        yield
    except (AMQPConnectionError, ChannelInvalidStateError, ConnectionError, TimeoutError) as exc:
        msg = f"the connection to the broker was lost: {_words(exc)}"
        raise BrokerAway(msg) from exc
    except AMQPError as exc:
        raise BrokerError(_words(exc)) from exc
    except asyncio.CancelledError as exc:
        if being_cancelled():
            raise
        raise BrokerAway(_SILENT) from exc
    except Exception as exc:
        if type(exc) is not Exception:
            raise
        raise BrokerAway(_CLOSED) from exc


def being_cancelled() -> bool:
    """True if a ``CancelledError`` is meant for the task that it is in, not aiormq's of a connection that closes."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def masked(url: str) -> str:
    """The URL without its password."""
    parsed = URL(url)
    return str(parsed if parsed.password is None else parsed.with_password("***"))


async def _connect(url: str, settings: Rabbitmq, name: str) -> AbstractConnection:
    context = await asyncio.to_thread(_tls, settings.tls) if url.startswith("amqps") else None
    try:
        return await aio_pika.connect(
            url,
            ssl_context=context,
            timeout=settings.connect_timeout,
            heartbeat=round(settings.heartbeat),
            client_properties={"connection_name": name},
            connection_class=_Connection,
        )
    except (AMQPError, OSError) as exc:
        raise _explained(exc, url, settings) from exc


def _tls(settings: Tls) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
    except OSError as exc:
        problem = Problem("rabbitmq.tls.caFile", f"{settings.ca_file} cannot be used: {_words(exc)}")
        raise SettingsError([problem]) from exc
    if settings.cert_file is not None:
        try:
            context.load_cert_chain(settings.cert_file, settings.key_file)
        except OSError as exc:
            files = " and ".join(file for file in (settings.cert_file, settings.key_file) if file is not None)
            problem = Problem("rabbitmq.tls.certFile", f"{files} cannot be used: {_words(exc)}")
            raise SettingsError([problem]) from exc
    return context


def _explained(error: BaseException, url: str, settings: Rabbitmq) -> BrokerError:
    """What went wrong while connecting, and the setting that mends it."""
    at, cause = masked(url), error.__cause__
    match error, cause:
        case ((AuthenticationError() | ProbableAuthenticationError()), _):
            return BrokerDenied(
                f"rabbitmq.url: {at} refuses the user or the password (guest is only for the broker's own host)"
            )
        case InvalidFrameError(), _ if "OpenOk" in str(error):  # aiormq keeps the broker's own words to itself
            return BrokerDenied(f"rabbitmq.url: {at}: there is no such vhost, or the user may not use it")
        case _, ssl.SSLCertVerificationError():
            known = "the system's authorities" if settings.tls.ca_file is None else settings.tls.ca_file
            return BrokerDenied(
                f"rabbitmq.tls.caFile: {known} cannot verify the certificate of {at}: {cause.verify_message}"
            )
        case _, ssl.SSLError(reason=str(reason)) if "CERTIFICATE" in reason.upper():
            return BrokerDenied(f"rabbitmq.tls.certFile: {at} does not accept our certificate: {reason}")
        case _, ssl.SSLError():
            return BrokerDenied(f"rabbitmq.url: {at} does not speak TLS as it should: {_words(cause)}")
        case TimeoutError(), _:
            return BrokerAway(f"rabbitmq.url: no answer from {at} within {settings.connect_timeout:g} s")
        case _:
            return BrokerAway(f"rabbitmq.url: no broker at {at}: {_words(cause or error)}")


def _words(error: BaseException) -> str:
    if isinstance(error, ConnectionError) and error.errno is not None:
        return os.strerror(error.errno)  # asyncio's own words are about calls and address pairs
    text = getattr(error, "strerror", None) or ", ".join(str(arg) for arg in error.args)
    return text or type(error).__name__


def _silence() -> None:
    """For the lines of aio-pika and aiormq, which tell of what we tell in our own words, and with tracebacks."""
    for library in ("aio_pika", "aiormq"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
