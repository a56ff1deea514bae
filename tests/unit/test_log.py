"""What a line of the log is for the machine that reads it: one JSON object, whatever is in it."""

import io
import json
import logging
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
import structlog

from builder import log
from builder.settings import Logging

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def lines() -> Iterator[Lines]:
    """The lines so far. What others have configured is there again afterwards."""
    out, root = io.StringIO(), logging.getLogger()
    before = root.handlers[:], root.level
    root.handlers = []
    log.configure(Logging(format="json"), out, for_good=False)
    yield lambda: [json.loads(line) for line in out.getvalue().splitlines()]
    structlog.reset_defaults()
    root.handlers, root.level = before


def test_a_line_is_one_object(lines: Lines) -> None:
    """When, how grave, what; then the fields, those that were bound first."""
    structlog.get_logger().bind(trace_id="t").info("event_accepted", event_id="e-1", priority=5)
    (line,) = lines()
    assert list(line) == ["time", "level", "event", "trace_id", "event_id", "priority"]
    assert list(line.values())[1:] == ["info", "event_accepted", "t", "e-1", 5]
    assert datetime.fromisoformat(line["time"]).utcoffset() == timedelta(0)


@pytest.mark.parametrize("value", ["\ud800", 2**64, {1: 2}, b"\xff", {"a"}, object(), float("inf")], ids=repr)
def test_nothing_keeps_a_line_from_being_written(lines: Lines, value: object) -> None:
    """What JSON has no word for comes as text, or as null."""
    structlog.get_logger().error("journal_damaged", file=value)
    (line,) = lines()
    assert (line["event"], line["level"]) == ("journal_damaged", "error")
    assert "file" in line


async def test_lines_of_one_turn_are_written_together_and_an_error_at_once(lines: Lines) -> None:
    """An error may be the last thing that a process says; what came before it comes before it."""
    logger = structlog.get_logger()
    logger.info("first")
    assert lines() == []
    logger.error("second")
    assert [line["event"] for line in lines()] == ["first", "second"]


def test_an_exception_has_its_traceback(lines: Lines) -> None:
    """In one line too."""
    try:
        raise ValueError("e-1")  # noqa: EM101, TRY301 -- the traceback is what is wanted
    except ValueError:
        structlog.get_logger().exception("item_crashed")
    (line,) = lines()
    assert line["exception"].endswith("ValueError: e-1")


def test_a_library_s_warning_is_a_line_like_ours(lines: Lines) -> None:
    """Aiohttp and asyncio know the standard library's logging only."""
    logging.getLogger("aiohttp.server").warning("odd request from %s", "127.0.0.1")
    (line,) = lines()
    assert (line["level"], line["event"]) == ("warning", "odd request from 127.0.0.1")


def test_what_is_below_the_level_is_not_written(lines: Lines) -> None:
    """Debug lines are for those who ask for them."""
    structlog.get_logger().debug("detail")
    assert lines() == []
