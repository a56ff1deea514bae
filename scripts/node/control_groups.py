"""The node's place in each of the machine's hierarchies of control groups, where its Pods are weighed and bounded.

Only these outlive the node's processes, so their names tell whose they are: what belongs to a keeper that is dead is
taken away by the next one.
"""

import contextlib
import os
import time
from pathlib import Path

PREFIX = "knative-lambda-node-"
_NEEDED = {"cpu", "memory", "pids"}
_TRIES = 50
_PAUSE = 0.1


def problem() -> str | None:
    """Why there can be no Pods here; None if there can."""
    hierarchies = _hierarchies()
    if not hierarchies:
        return "no control groups are mounted in /sys/fs/cgroup"
    if not all(os.access(place, os.W_OK) for place in hierarchies):
        return "the control groups in /sys/fs/cgroup are mounted read-only"
    missing = _NEEDED - _controllers()
    return f"the control groups have no {', '.join(sorted(missing))}" if missing else None


def make(keeper: int) -> str:
    """Make the group in every hierarchy; its name."""
    name = f"{PREFIX}{keeper}"
    for hierarchy in _hierarchies():
        group = hierarchy / name
        group.mkdir()
        for setting in ("cpuset.cpus", "cpuset.mems"):  # empty in a new group of version 1, and nothing could run there
            if (group / setting).exists() and not (group / setting).read_text().strip():
                (group / setting).write_text((hierarchy / setting).read_text())
    return name


def remove(name: str) -> None:
    """With everything below it. A process that was killed needs a moment to leave its group."""
    for hierarchy in _hierarchies():
        for attempt in range(_TRIES):
            try:
                _remove_tree(hierarchy / name)
            except OSError:
                if attempt == _TRIES - 1:
                    raise
                time.sleep(_PAUSE)
            else:
                break


def orphans() -> set[str]:
    """What keepers left who were killed before they could tidy up."""
    names = {group.name for hierarchy in _hierarchies() for group in hierarchy.glob(f"{PREFIX}*")}
    return {name for name in names if not Path("/proc", name.removeprefix(PREFIX)).exists()}


def remove_orphans() -> None:
    """As far as they can be removed."""
    for name in orphans():
        with contextlib.suppress(OSError):
            remove(name)


def processes(name: str) -> dict[str, list[str]]:
    """Uid of each Pod that has processes below this group → the names of these, but for its pause."""
    found: dict[str, list[str]] = {}
    for folder, _, _ in os.walk(_hierarchies()[0] / name):  # which passes over what goes meanwhile, unlike rglob
        group = Path(folder)
        pod = next((part.removeprefix("pod") for part in group.parts if part.startswith("pod")), None)
        with contextlib.suppress(OSError):  # group or process have just gone
            for pid in (group / "cgroup.procs").read_text().split():
                command = Path("/proc", pid, "comm").read_text().strip()
                if pod is not None and command != "pause":
                    found.setdefault(pod, []).append(command)
    return found


def _remove_tree(group: Path) -> None:
    if not group.exists():
        return
    for child in group.iterdir():
        if child.is_dir():
            _remove_tree(child)
    group.rmdir()


def _hierarchies() -> list[Path]:
    """Where groups are mounted: many places with version 1, one with version 2, and runc uses all that are there."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    return [Path(place) for _, place, kind, *_ in mounts if kind in {"cgroup", "cgroup2"}]


def _controllers() -> set[str]:
    second = Path("/sys/fs/cgroup/cgroup.controllers")
    if second.exists():
        return set(second.read_text().split())
    lines = Path("/proc/cgroups").read_text().splitlines()[1:]
    return {name for name, _, _, enabled in map(str.split, lines) if enabled == "1"}
