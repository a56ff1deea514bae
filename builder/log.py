"""How log lines look: an event name and fields; JSON for machines, columns for a person at a terminal."""

import asyncio
import json
import logging
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TextIO, cast

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from builder.settings import Logging


def configure(settings: Logging, stream: TextIO | None = None, *, for_good: bool = True) -> None:
    """Set up structlog, and send the standard library's records (aiohttp's, asyncio's) the same way.

    ``for_good`` makes each line cheaper, and no later call can change what has logged by then.
    """
    out = cast("TextIO", _Stderr()) if stream is None else stream
    level = getattr(logging, settings.level.upper())
    if settings.format == "console" or (settings.format == "auto" and out.isatty()):
        processors = _for_people(colors=out.isatty())
        structlog.configure(
            processors=processors,
            wrapper_class=structlog.make_filtering_bound_logger(level),
            logger_factory=structlog.WriteLoggerFactory(out),
            cache_logger_on_first_use=for_good,
        )
        _configure_library(level, out, processors)
    else:
        lines = _Lines(out)
        structlog.configure(
            processors=[],
            wrapper_class=_json_logger(level),
            logger_factory=lambda *_: lines,
            cache_logger_on_first_use=for_good,
        )
        _configure_library(level, out, [structlog.processors.format_exc_info, _as_line])


def _configure_library(level: int, out: TextIO, processors: list[Processor]) -> None:
    """The standard library's records, aiohttp's and asyncio's, from warnings on."""
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *processors]
        )
    )
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler], force=True)


def _for_people(*, colors: bool) -> list[Processor]:
    return [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False, key="time"),
        structlog.dev.ConsoleRenderer(colors=colors, timestamp_key="time"),
    ]


def _line(level: str, event: str, context: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """When, how grave, what; and then the rest."""
    return {"time": datetime.now(UTC), "level": level, "event": event, **context, **fields}


def _render(line: dict[str, Any]) -> str:
    try:
        return orjson.dumps(line, default=repr, option=orjson.OPT_UTC_Z).decode()
    except TypeError:  # half of a surrogate pair, or a number of more than 64 bits: no reason to say nothing
        return json.dumps(line, default=str)


def _as_line(_logger: WrappedLogger, level: str, fields: EventDict) -> str:
    return _render(_line(level, fields.pop("event"), {}, fields))


class _JsonLogger(structlog.BoundLoggerBase):
    """Lines without a chain of processors: one is written for each step of each event."""

    def debug(self, event: str, **fields: Any) -> None:
        self._logger.soon(_line("debug", event, self._context, fields))

    def info(self, event: str, **fields: Any) -> None:
        self._logger.soon(_line("info", event, self._context, fields))

    def warning(self, event: str, **fields: Any) -> None:
        self._logger.soon(_line("warning", event, self._context, fields))

    def error(self, event: str, **fields: Any) -> None:
        self._logger.now(_line("error", event, self._context, fields))

    def exception(self, event: str, **fields: Any) -> None:
        self.error(event, **fields, exception=traceback.format_exc().rstrip())


def _json_logger(level: int) -> type[_JsonLogger]:
    """The class that says nothing below ``level``."""
    silent = [name for name in ("debug", "info", "warning", "error") if getattr(logging, name.upper()) < level]
    return type("JsonLogger", (_JsonLogger,), dict.fromkeys(silent, _say_nothing))


def _say_nothing(_logger: _JsonLogger, _event: str, **_fields: Any) -> None:
    pass


class _Stderr:
    """``sys.stderr`` as it is at each line, for whoever puts another in its place."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()

    def isatty(self) -> bool:
        return sys.stderr.isatty()


class _Lines:
    """Writes the lines of one turn of the event loop at once: a system call for each line costs more than the line."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._waiting: list[dict[str, Any]] = []

    def soon(self, line: dict[str, Any]) -> None:
        """Write at the end of this turn."""
        self._waiting.append(line)
        if len(self._waiting) == 1:
            try:
                asyncio.get_running_loop().call_soon(self.flush)
            except RuntimeError:  # no loop runs: nothing to wait for
                self.flush()

    def now(self, line: dict[str, Any]) -> None:
        """Write before anything else happens."""
        self._waiting.append(line)
        self.flush()

    def flush(self) -> None:
        """Write what waits."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._out.write("\n".join(map(_render, waiting)) + "\n")
            self._out.flush()
