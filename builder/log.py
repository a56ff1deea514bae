"""How log lines look: an event name and fields; JSON for machines, columns for a person at a terminal."""

import logging
import sys
from typing import TextIO

import structlog
from structlog.typing import Processor

from builder.settings import Logging


def configure(settings: Logging, stream: TextIO | None = None) -> None:
    """Set up structlog, and send the standard library's records (aiohttp's, asyncio's) the same way."""
    out = sys.stderr if stream is None else stream
    level = getattr(logging, settings.level.upper())
    for_people = settings.format == "console" or (settings.format == "auto" and out.isatty())
    shared: list[Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if for_people else "iso", utc=not for_people, key="time"),
    ]
    last: list[Processor] = (
        [structlog.dev.ConsoleRenderer(colors=out.isatty(), timestamp_key="time")]
        if for_people
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(out),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last]
        )
    )
    logging.basicConfig(level=max(level, logging.WARNING), handlers=[handler], force=True)
