"""What the commands share: the help's form, and the flags that stand for settings."""

import argparse
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

from builder.settings import Settings
from builder.settings_sources import load

if TYPE_CHECKING:
    Parsers: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 -- argparse has no public name for it
else:
    Parsers = object


def new_parser(commands: Parsers, name: str, summary: str, example: str) -> argparse.ArgumentParser:
    """A command's own parser, whose help ends with an example."""
    return commands.add_parser(
        name,
        help=summary,
        description=summary,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_settings(parser: argparse.ArgumentParser) -> None:
    """The flags that stand for a setting; each wins over the file and the environment."""
    parser.add_argument("--config", metavar="FILE", help="the YAML file of settings (else BUILDER_CONFIG)")
    parser.add_argument("--cluster", choices=["kubernetes", "memory"], help="where Jobs are made")
    parser.add_argument("--namespace", metavar="NAME", help="the namespace of the Jobs (kubernetes.namespace)")


def add_output(parser: argparse.ArgumentParser, *formats: str) -> None:
    """``-o``: the first format is the default."""
    parser.add_argument("-o", "--output", choices=formats, default=formats[0], help="default: %(default)s")


def settings_of(parsed: argparse.Namespace, more: Mapping[str, object] | None = None) -> Settings:
    """The settings in force for a command that has the flags of ``add_settings``; ``more`` are further flags."""
    flags = {"cluster": parsed.cluster, "kubernetes.namespace": parsed.namespace}
    return load(os.environ, parsed.config, flags | dict(more or {}))


def add_amqp(parser: argparse.ArgumentParser) -> None:
    """The flags of a command that talks to RabbitMQ."""
    parser.add_argument("--amqp", metavar="URL", help="the broker (rabbitmq.url)")
    parser.add_argument("--config", metavar="FILE", help="the YAML file of settings (else BUILDER_CONFIG)")


def amqp_settings(parsed: argparse.Namespace) -> Settings:
    """The settings in force for a command that has the flags of ``add_amqp``, builds nothing and needs no cluster."""
    return load(os.environ, parsed.config, {"cluster": "memory", "rabbitmq.url": parsed.amqp})
