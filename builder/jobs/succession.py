"""Which events had their Job before this one under its name: none of them builds again, however late it comes back."""

from builder.jobs import labels
from builder.models import Manifest, identity_of

REMEMBERED = 50


def successor(job: Manifest, replaced: Manifest) -> Manifest:
    """``job``, which takes the place of ``replaced``, with a note of that one's event and of those noted there."""
    metadata = job["metadata"]
    note = " ".join([_event(replaced), *_noted(replaced)][:REMEMBERED])
    return job | {"metadata": metadata | {"annotations": metadata["annotations"] | {labels.REPLACED: note}}}


def came_after(existing: Manifest, wanted: Manifest) -> bool:
    """True if the event of ``wanted`` had its Job, which ``existing`` replaced."""
    return _event(wanted) in _noted(existing)


def _event(job: Manifest) -> str:
    annotations = labels.annotations(job)
    return identity_of(annotations.get(labels.EVENT_SOURCE, ""), annotations.get(labels.EVENT_ID, "")).hex()


def _noted(job: Manifest) -> list[str]:
    return labels.annotations(job).get(labels.REPLACED, "").split()
