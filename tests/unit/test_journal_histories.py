"""The journal through random lives: against a model, and copied at random moments as a crash would leave it."""

import asyncio
import contextlib
import itertools
import os
import random
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from builder.adapters.sqlite_journal import SqliteJournal, seen
from builder.flow.ports import LetterFilter, Receipt
from builder.models import Outcome
from tests.journal_parts import (
    check_counts,
    copy_as_a_crash_would,
    entry,
    identity,
    kept,
    letter,
    opened,
    result,
    rows,
    taken,
    unfinished,
)

ROOT = Path(__file__).parents[2]
T = TypeVar("T")


# --- power loss in miniature ------------------------------------------------------------------------------------------

_STREAM = """
import asyncio, os, pathlib, sys
from tests.journal_parts import *

async def life(journal, number, answers):
    one = entry(f"e-{number}", note="x" * (number % 50) * 100)
    receipt = await journal.admit(one)
    os.write(answers, f"admitted e-{number}\\n".encode())
    if number % 3:
        await receipt.settle(result(one.event, Outcome.FAILED if number % 7 == 0 else Outcome.CREATED))
        os.write(answers, f"settled e-{number}\\n".encode())

async def main(path, answers):
    descriptor = os.open(answers, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    async with opened(path) as journal, kept(journal):
        for start in range(0, 10**6, 16):
            await asyncio.gather(*(life(journal, start + number, descriptor) for number in range(16)))

asyncio.run(main(pathlib.Path(sys.argv[1]), sys.argv[2]))
"""


def stop(process: subprocess.Popen[bytes]) -> None:
    """Hold a process wherever it is; comes back when it stands."""
    process.send_signal(signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)


async def test_every_answer_from_before_a_power_loss_is_there(tmp_path: Path) -> None:
    """A process under load is held at random moments, its files are copied as they are, and each copy is opened."""
    seed = secrets.randbelow(2**32)
    print(f"seed {seed}")  # noqa: T201 -- shown when it fails
    draw = random.Random(seed)  # noqa: S311 -- no secret
    path, answers = tmp_path / "journal.sqlite3", tmp_path / "answers"
    moments: list[tuple[Path, list[str]]] = []
    with subprocess.Popen([sys.executable, "-c", _STREAM, str(path), str(answers)], cwd=ROOT) as process:  # noqa: ASYNC220
        try:
            while not (answers.exists() and answers.stat().st_size):
                assert process.poll() is None
                await asyncio.sleep(0.01)
            for number in range(15):
                time.sleep(draw.uniform(0.001, 0.08))  # noqa: ASYNC251 -- the moment is what is drawn
                stop(process)
                copy = copy_as_a_crash_would(path, tmp_path / f"copy-{number}")
                moments.append((copy, answers.read_text().splitlines()))
                process.send_signal(signal.SIGCONT)
        finally:
            process.kill()
    for copy, answered in moments:
        await check_moment(copy, answered)
    assert len(moments[-1][1]) > 100, "there was a stream"


async def check_moment(copy: Path, answered: list[str]) -> None:
    """What was answered is in the copy, in its place."""
    said = [line.split() for line in answered]
    settled = {event_id for word, event_id in said if word == "settled"}
    admitted = {event_id for word, event_id in said if word == "admitted"}
    assert rows(copy, "PRAGMA quick_check") == [("ok",)]
    check_counts(copy)
    async with opened(copy) as journal:
        left = {one.entry.event.id for one in await unfinished(journal)}
        assert not left & settled
        assert {i for i in admitted - left if not await journal.seen(identity(i))} == set()
        failed = {one.attributes["id"] for one in await journal.letters(LetterFilter(), 100_000)}
        assert {event_id for event_id in settled if int(event_id[2:]) % 7 == 0} <= failed
    assert not list(copy.parent.glob("*.damaged-*"))


# --- against a model --------------------------------------------------------------------------------------------------


class Life(RuleBasedStateMachine):
    """One journal through processes that end well or do not."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name, "journal.sqlite3")
        self.runner = asyncio.Runner()
        self.stack = contextlib.AsyncExitStack()
        self.copies = itertools.count()
        self.held: dict[str, Receipt] = {}  # event → its receipt in this process
        self.progress: dict[str, str | None] = {}  # what is unfinished, with what was noted, in its order
        self.finished: set[str] = set()
        self.letters: dict[int, tuple[str, bool]] = {}  # id → event, replayed
        self.letter_of: dict[tuple[bool, str], int] = {}  # (rejected, event) → the id of the one that such have
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(seen, "MORE", 3)
        self.patch.setattr(seen, "STEP", 2)
        self.journal = self.run(self.open())

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Have it done."""
        return self.runner.run(coroutine)

    async def open(self) -> SqliteJournal:
        journal = await self.stack.enter_async_context(opened(self.path))
        await self.keep_house_once(journal)
        return journal

    @staticmethod
    async def keep_house_once(journal: SqliteJournal) -> None:
        async with kept(journal):
            await asyncio.sleep(0)
            await journal.count()

    def teardown(self) -> None:
        self.run(self.stack.aclose())
        self.runner.close()
        self.patch.undo()
        check_counts(self.path)
        self.folder.cleanup()

    events = st.sampled_from([f"e-{number}" for number in range(6)])

    @rule(event_id=events)
    def admit(self, event_id: str) -> None:
        """New is what nobody holds and nobody has seen."""
        receipt = self.run(self.journal.admit(entry(event_id)))
        assert (receipt is None) == (event_id in self.progress or event_id in self.finished)
        if receipt is not None:
            self.held[event_id] = receipt
            self.progress[event_id] = None

    @precondition(lambda self: self.held)
    @rule(data=st.data(), outcome=st.sampled_from(Outcome))
    def settle(self, data: st.DataObject, outcome: Outcome) -> None:
        """A failure leaves a letter: a new one, or the event's old one anew."""
        event_id = data.draw(st.sampled_from(sorted(self.held)))
        self.run(self.held.pop(event_id).settle(result(entry(event_id).event, outcome)))
        del self.progress[event_id]
        self.finished.add(event_id)
        if outcome is Outcome.FAILED:
            self.keep_letter(event_id, rejected=False)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), progress=st.text(max_size=5))
    def note(self, data: st.DataObject, progress: str) -> None:
        """Progress; an operation that is awaited comes after it."""
        event_id = data.draw(st.sampled_from(sorted(self.held)))
        self.held[event_id].note(progress)
        self.run(self.journal.count())
        self.progress[event_id] = progress

    @rule(number=st.integers(0, 3))
    def park(self, number: int) -> None:
        """What is rejected again adds to its letter."""
        self.run(self.journal.park(letter(number)))
        self.keep_letter(f"r-{number}", rejected=True)

    @precondition(lambda self: self.letters)
    @rule(data=st.data())
    def readmit(self, data: st.DataObject) -> None:
        """Once for each failure."""
        letter_id = data.draw(st.sampled_from(sorted(self.letters)))
        whose, replayed = self.letters[letter_id]
        receipt = self.run(self.journal.readmit(letter_id, entry(whose)))
        assert (receipt is None) == (replayed or whose in self.progress)
        self.letters[letter_id] = (whose, True)
        if receipt is not None:
            self.held[whose] = taken(receipt)
            self.progress[whose] = None

    @precondition(lambda self: self.letters)
    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        """Gone, and only that one."""
        letter_id = data.draw(st.sampled_from(sorted(self.letters)))
        assert self.run(self.journal.discard(letter_id))
        assert not self.run(self.journal.discard(letter_id))
        del self.letters[letter_id]
        self.letter_of = {key: one for key, one in self.letter_of.items() if one != letter_id}

    @rule()
    def keep_house(self) -> None:
        """Nobody's time is over: a part of the filter of identities is read."""
        self.run(self.keep_house_once(self.journal))

    @rule()
    def reopen(self) -> None:
        """The next process."""
        self.run(self.stack.aclose())
        self.wake_up()

    @rule()
    def crash(self) -> None:
        """The next process after a kill: on a copy of the files as they are now."""
        folder = Path(self.folder.name, f"copy-{next(self.copies)}")
        copy = copy_as_a_crash_would(self.path, folder)
        self.run(self.stack.aclose())
        self.path = copy
        self.wake_up()

    def wake_up(self) -> None:
        """All that is unfinished, and nothing else, comes back in its order."""
        self.journal = self.run(self.open())
        left = self.run(unfinished(self.journal))
        assert [(one.entry.event.id, one.progress) for one in left] == list(self.progress.items())
        self.held = {one.entry.event.id: one.receipt for one in left}

    def keep_letter(self, event_id: str, *, rejected: bool) -> None:
        """The old one anew, or one with a new id."""
        key = (rejected, event_id)
        if key not in self.letter_of:
            (newest,) = self.run(self.journal.letters(LetterFilter(), 1))
            assert newest.id is not None
            assert newest.id not in self.letters
            self.letter_of[key] = newest.id
        self.letters[self.letter_of[key]] = (event_id, False)

    @invariant()
    def agrees_with_the_model(self) -> None:
        """The letters, and what is seen."""
        found = self.run(self.journal.letters(LetterFilter(), 100))
        there = {one.id: (one.attributes["id"], one.replayed_at is not None) for one in found}
        assert there == self.letters
        assert self.run(self.journal.count()) == len(self.letters)
        for number in range(6):
            known = f"e-{number}" in self.progress or f"e-{number}" in self.finished
            assert self.run(self.journal.seen(identity(f"e-{number}"))) == known


TestLife = Life.TestCase
TestLife.settings = hypothesis.settings(max_examples=15, stateful_step_count=25, print_blob=True)
