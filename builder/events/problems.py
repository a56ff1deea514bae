"""How problems of an event are collected and worded, so that one answer can name them all."""

import json
import re
from collections.abc import Mapping
from typing import TypeAlias

from builder.errors import Problem

Found: TypeAlias = dict[str, str]
"""What is wrong so far: field → message. The first message for a field stays (``setdefault``)."""

MAX_PROBLEMS = 50
"""More than this helps nobody, and a hostile event could have a million of them."""

_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SHOWN = 60


def problems_from(found: Mapping[str, str]) -> tuple[Problem, ...]:
    """The problems in the order in which they were found, at most ``MAX_PROBLEMS`` and a word about the rest."""
    problems = [Problem(field, message) for field, message in found.items()]
    if len(problems) > MAX_PROBLEMS:
        rest = len(problems) - MAX_PROBLEMS
        problems[MAX_PROBLEMS:] = [Problem("", f"and {rest} more problems of the same event")]
    return tuple(problems)


def quoted(text: str) -> str:
    """A sender's text, safe to print: in double quotes, all but ASCII escaped, cut to 60 characters."""
    shown = json.dumps(text[:_SHOWN])
    return shown if len(text) <= _SHOWN else f"{shown[:-1]}…{shown[-1]}"


def key(text: str) -> str:
    """A sender's name as one part of a field's path: as it is where it is plain, else quoted."""
    return text if _PLAIN.fullmatch(text) else quoted(text)
