"""Who comes after whom under one name: when a Job's event was requested, and which others had their Job there before.

A Job that takes another's place needs no memory of it as long as it is the later request for the same target: whoever
comes back late sees that. It notes the rest: those of its own moment, and those of another target that shares its name.
"""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from builder.jobs import labels
from builder.models import Manifest, identity_of

REMEMBERED = 50

SKEW = timedelta(minutes=1)
"""By so much may our clock be ahead of the API server's."""

_EVER = datetime.min.replace(tzinfo=UTC)


class _Turn(NamedTuple):
    """A Job that was under the name: of which event, for which parser of the one third party, requested when."""

    event: str
    parser_id: str
    at: datetime

    def overtakes(self, other: "_Turn") -> bool:
        """True if this is the later request for the same target."""
        return self.parser_id == other.parser_id and self.at > other.at


def successor(job: Manifest, replaced: Manifest) -> Manifest:
    """``job``, which takes the place of ``replaced``, with a note of those that had their turn before it."""
    mine = _turn(job)
    turns = [_turn(replaced), *_noted(replaced), *_noted(job)]
    kept = [
        turn for turn in turns if turn.event != mine.event and not any(one.overtakes(turn) for one in [mine, *turns])
    ]
    distinct = list(dict.fromkeys(kept))[:REMEMBERED]
    return with_note(job, " ".join(f"{turn.event},{turn.parser_id},{turn.at.isoformat()}" for turn in distinct))


def note_of(job: Manifest) -> str:
    """Who had their turn before ``job``, in words that ``with_note`` understands; empty if its time tells enough."""
    return labels.annotations(job).get(labels.REPLACED, "")


def with_note(job: Manifest, note: str) -> Manifest:
    """``job`` with a note that was made for it in an earlier try."""
    if not note:
        return job
    metadata = job["metadata"]
    return job | {"metadata": metadata | {"annotations": metadata["annotations"] | {labels.REPLACED: note}}}


def came_after(existing: Manifest, wanted: Manifest) -> bool:
    """True if the event of ``wanted``, or a later one for its target, had its turn before ``existing``."""
    mine = _turn(wanted)
    return any(turn.event == mine.event or turn.overtakes(mine) for turn in _noted(existing))


def requested_at(job: Manifest) -> datetime:
    """When its event was requested; the beginning of time where somebody removed the annotation or broke it.

    Nothing is requested after its Job was made, by the API server's clock: who wrote the annotation had a clock that
    had leapt ahead, and for days everybody else would seem to come too late.
    """
    at = _time(labels.annotations(job).get(labels.REQUESTED_AT)) or _EVER
    made = _time(job["metadata"].get("creationTimestamp"))
    return at if made is None else min(at, made + SKEW)


def _turn(job: Manifest) -> _Turn:
    annotations = labels.annotations(job)
    event = identity_of(annotations.get(labels.EVENT_SOURCE, ""), annotations.get(labels.EVENT_ID, "")).hex()
    return _Turn(event, annotations.get(labels.PARSER_ID, ""), requested_at(job))


def _noted(job: Manifest) -> list[_Turn]:
    """Those of the note; without what somebody broke by hand."""
    entries = [entry.split(",") for entry in note_of(job).split()]
    return [_Turn(entry[0], entry[1], at) for entry in entries if len(entry) == 3 and (at := _time(entry[2]))]  # noqa: PLR2004 -- the fields of a turn


def _time(text: str | None) -> datetime | None:
    try:
        at = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
