"""``scripts/bench [accept|jobs|memory|journal|amqp|growth|publish|traces ...] [--rounds N] [--write]``."""

import argparse
import dataclasses
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from child_programs import ProgramError
from control_plane import BUILD_SCRIPT, ControlPlane, ControlPlaneError, Missing, find_binaries

from benchmarks import accept, amqp, growth, jobs, journal, memory, publish, table, traces
from benchmarks.children import ChildError
from benchmarks.load import LoadError

README = Path(__file__).with_name("README.md")
PARTS = ("accept", "jobs", "memory", "journal", "amqp", "growth", "publish", "traces")
ROUNDS = {"accept": 30, "jobs": 4, "memory": 3, "journal": 3, "amqp": 4, "growth": 3, "publish": 5, "traces": 5}


def main() -> int:
    """0 if every median is inside its bound, 1 if one is not, 2 if something could not be measured."""
    parsed = _arguments()
    try:
        rows = _measure(parsed.parts or PARTS, parsed.rounds)
    except (ChildError, ProgramError, LoadError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    text = f"{table.render(rows)}\n\n{table.describe_machine()}"
    print(f"\n{text}")
    if parsed.write:
        table.write(README, text)
    return 0 if all(row.holds for row in rows) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="The ratios of benchmarks/README.md, measured.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all of them if none is named")
    parser.add_argument("--rounds", type=int, help=f"rounds of each part (default {ROUNDS})")
    parser.add_argument(
        "--write", action="store_true", help="put the table into benchmarks/README.md; only with all parts"
    )
    parsed = parser.parse_args()
    if unknown := set(parsed.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    if parsed.write and set(parsed.parts) not in (set(), set(PARTS)):
        parser.error("--write would lose the rows of the parts that are left out")
    if parsed.rounds is not None and parsed.rounds < 1:
        parser.error("--rounds must be 1 or more")
    return parsed


def _measure(parts: Sequence[str], rounds: int | None) -> list[table.Row]:
    times = {part: ROUNDS[part] if rounds is None else rounds for part in PARTS}
    rows: list[table.Row] = []
    if "accept" in parts:
        _say("accept", times)
        rows += accept.rows(times["accept"])
    if {"jobs", "memory", "journal", "amqp"} & set(parts):
        with _api_server() as cluster:
            if "jobs" in parts:
                _say("jobs", times)
                rows += jobs.rows(times["jobs"], cluster)
            if "memory" in parts:
                _say("memory", times)
                rows += memory.rows(times["memory"], cluster)
            if "journal" in parts:
                _say("journal", times)
                rows += journal.rows(times["journal"], cluster)
            if "amqp" in parts:
                _say("amqp", times)
                rows += amqp.rows(times["amqp"], cluster)
    if "growth" in parts:
        _say("growth", times)
        rows += growth.rows(times["growth"])
    if "publish" in parts:
        _say("publish", times)
        rows += publish.rows(times["publish"])
    if "traces" in parts:
        _say("traces", times)
        rows += traces.rows(times["traces"])
    return rows


def _api_server() -> ControlPlane:
    """Without controllers: Pods that they made of one side's Jobs would disturb the other side's round."""
    subprocess.run([BUILD_SCRIPT], check=True)
    found = find_binaries()
    if isinstance(found, Missing):
        raise ControlPlaneError(found.reason)
    return ControlPlane(dataclasses.replace(found, kube_controller_manager=None))


def _say(part: str, times: dict[str, int]) -> None:
    print(f"{part}: {times[part]} rounds", flush=True)


if __name__ == "__main__":
    sys.exit(main())
