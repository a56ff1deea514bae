"""The command line: ``knative-lambda-builder serve | publish | render | check | topology | dead-letters``.

Exit codes: 0 done, 1 it did not work, 2 it was asked wrongly. A user's mistake never shows a traceback.
"""

import argparse
import sys
from collections.abc import Sequence

from builder import __version__, log
from builder.cli import check, dead_letters, publish, render, serve, topology
from builder.errors import BuilderError, SettingsError
from builder.settings import Logging

_COMMANDS = (serve, publish, render, check, topology, dead_letters)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    parser = argparse.ArgumentParser(
        prog="knative-lambda-builder",
        description="Turns build events into Kaniko Jobs, each accepted one exactly once.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add_parser(commands)
    parsed = parser.parse_args(arguments)
    # What a command prints is its answer and nothing else; the service sets its own log up.
    log.configure(Logging(level="warning"), for_good=False)
    try:
        code: int = parsed.run(parsed)
    except SettingsError as exc:
        print(f"settings:\n{_indented(exc)}", file=sys.stderr)
        return 2
    except BuilderError as exc:
        print(f"{parser.prog} {parsed.command}: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return code


def _indented(error: SettingsError) -> str:
    return "\n".join(f"  {problem}" for problem in error.problems)
