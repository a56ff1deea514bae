"""The one table: what was measured, how it scattered, and what it has to be."""

import operator
import os
import platform
import sysconfig
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median

BEGIN, END = "<!-- table: written by scripts/bench --write -->", "<!-- end of table -->"
HEAD = ("What", "Ours", "Peer", "min", "median", "max", "must be", "")
LIBRARIES = ("aiohttp", "cloudevents", "fastapi", "kubernetes_asyncio", "pydantic", "uvicorn", "uvloop")

_DECIMALS = {"ms": 2, "s": 2}
_COMPARE: dict[str, Callable[[float, float], bool]] = {"≥": operator.ge, "≤": operator.le, "<": operator.lt}


@dataclass(frozen=True, slots=True)
class Bound:
    """What the median has to be: ``sign`` is one of ≥, ≤ and <."""

    sign: str
    value: float

    def holds(self, figure: float) -> bool:
        """True if ``figure`` is as it should be."""
        return _COMPARE[self.sign](figure, self.value)


@dataclass(frozen=True, slots=True)
class Row:
    """One line. ``samples`` are the rounds' figures in ``unit``; ``ours`` and ``peer`` what they were made of."""

    what: str
    samples: Sequence[float]
    bound: Bound
    unit: str = "x"
    ours: str = ""
    peer: str = ""

    @property
    def holds(self) -> bool:
        """True if the median is inside its bound: one bad round of a noisy machine is no verdict."""
        return self.bound.holds(median(self.samples))

    def cells(self) -> tuple[str, ...]:
        """The line's texts, in the order of ``HEAD``."""
        figures = (min(self.samples), median(self.samples), max(self.samples))
        bound = f"{self.bound.sign} {self._text(self.bound.value)}"
        return (self.what, self.ours, self.peer, *map(self._text, figures), bound, "ok" if self.holds else "**missed**")

    def _text(self, figure: float) -> str:
        if self.unit == "x":
            return f"{figure:.2f} x"
        return f"{figure:,.{_DECIMALS.get(self.unit, 0)}f} {self.unit}"


def ratios(ours: Sequence[float], peer: Sequence[float]) -> list[float]:
    """Round by round: what disturbed one round disturbed both of its sides."""
    return [mine / other for mine, other in zip(ours, peer, strict=True)]


def render(rows: Sequence[Row]) -> str:
    """The table in Markdown, its columns aligned for those who read it in a terminal."""
    lines = [HEAD, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]
    texts = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([texts[0], rule, *texts[1:]])


def describe_machine() -> str:
    """Where the figures come from, without the machine's name."""
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    optimized = "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
    python = f"{platform.python_version()} ({'with' if optimized else 'without'} profile-guided optimization)"
    cores = len(os.sched_getaffinity(0))
    return f"{_processor()}, {cores} cores, Linux {platform.release()}, Python {python}; {libraries}."


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.machine()


def write(readme: Path, text: str) -> None:
    """Put ``text`` between the two markers of the file."""
    before, begin, rest = readme.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        msg = f"{readme} has lost its markers {BEGIN} and {END}"
        raise ValueError(msg)
    readme.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
