"""How log lines look: an event name and fields; JSON for machines, columns for a person at a terminal."""

import asyncio
import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO, cast

import structlog
from pydantic_core import to_json
from structlog.typing import EventDict, Processor, WrappedLogger

from builder.settings import Logging


def configure(settings: Logging, stream: TextIO | None = None, *, for_good: bool = True) -> None:
    """Set up structlog, and send the standard library's records (aiohttp's, asyncio's) the same way.

    ``for_good`` makes each line cheaper, and no later call can change what has logged by then.
    """
    out = cast("TextIO", _Stderr()) if stream is None else stream
    level = getattr(logging, settings.level.upper())
    if settings.format == "console" or (settings.format == "auto" and out.isatty()):
        _configure(level, out, structlog.WriteLoggerFactory(out), _for_people(colors=out.isatty()), for_good=for_good)
    else:
        lines = _Lines(out)
        processors: list[Processor] = [structlog.processors.format_exc_info, _stamp]
        _configure(level, out, lambda *_: lines, processors, for_good=for_good)


def _configure(level: int, out: TextIO, factory: Any, processors: list[Processor], *, for_good: bool) -> None:
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=factory,
        cache_logger_on_first_use=for_good,
    )
    handler = logging.StreamHandler(out)
    rendered = processors if processors[-1] is not _stamp else [*processors, lambda _, __, fields: _render(fields)]
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendered]
        )
    )
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler], force=True)


def _for_people(*, colors: bool) -> list[Processor]:
    return [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False, key="time"),
        structlog.dev.ConsoleRenderer(colors=colors, timestamp_key="time"),
    ]


def _stamp(_logger: WrappedLogger, level: str, fields: EventDict) -> EventDict:
    """What comes first in a line comes first in the dict: when, how grave, what."""
    return {"time": datetime.now(UTC), "level": level, "event": fields.pop("event"), **fields}


def _render(fields: EventDict) -> str:
    return to_json(fields, fallback=repr).decode()


class _Stderr:
    """``sys.stderr`` as it is at each line, for whoever puts another in its place."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()

    def isatty(self) -> bool:
        return sys.stderr.isatty()


class _Lines:
    """Writes the lines of one turn of the event loop at once: a system call for each line costs more than the line.

    From ``error`` on a line is written before anything else happens.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._waiting: list[EventDict] = []

    def info(self, **fields: Any) -> None:
        """Write soon."""
        self._waiting.append(fields)
        if len(self._waiting) == 1:
            try:
                asyncio.get_running_loop().call_soon(self.flush)
            except RuntimeError:  # no loop runs: nothing to wait for
                self.flush()

    def error(self, **fields: Any) -> None:
        """Write now."""
        self._waiting.append(fields)
        self.flush()

    debug = warning = info
    critical = error

    def flush(self) -> None:
        """Write what waits."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._out.write("\n".join(map(_render, waiting)) + "\n")
            self._out.flush()
