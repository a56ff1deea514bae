"""``check``: settings, connection and permissions, before anything runs."""

import argparse
import asyncio
import json
import os
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from builder.build_settings import ENGINE_NEEDS
from builder.cli.options import Parsers, add_output, add_settings, new_parser, settings_of
from builder.errors import AlreadyExists, BrokerError, ClusterError, StartError
from builder.jobs.manifest import build_job
from builder.models import BuildRequest, BuildType, Source, SourceKind, Target
from builder.rabbitmq_settings import Rabbitmq
from builder.settings import Settings

if TYPE_CHECKING:
    from builder.adapters.kubernetes import KubernetesCluster

_REQUEST = BuildRequest(
    event_id="check",
    event_source="knative-lambda-builder check",
    requested_at=datetime(2024, 1, 1, tzinfo=UTC),
    target=Target("check", "check"),
    correlation_id="check",
    job_name="knative-lambda-builder-check",
    priority=5,
    build_type=BuildType.CONTAINER,
    runtime=None,
    source=Source(SourceKind.GIT, "https://git.example.com/check/check.git"),
    dockerfile=None,
    build_timeout=1800,
    environment={},
)
"""A build that nobody wants: it is only rehearsed."""


def add_parser(commands: Parsers) -> None:
    """Add the command."""
    parser = new_parser(
        commands,
        "check",
        "Check settings, connection and permissions.",
        "knative-lambda-builder check --namespace knative-lambda-dev -o json",
    )
    add_settings(parser)
    add_output(parser, "text", "json")
    parser.set_defaults(run=run)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    check: str
    ok: bool
    detail: str


def run(parsed: argparse.Namespace) -> int:
    """1 if anything is not as it must be (wrong settings end in 2 before that)."""
    settings = settings_of(parsed)
    findings = [
        Finding("settings", ok=True, detail="all keys known, all values allowed"),
        Finding("custody", ok=True, detail=f"{settings.custody}: {settings.promise}"),
        Finding("engine", ok=True, detail=f"{settings.build.engine}: {ENGINE_NEEDS[settings.build.engine]}"),
    ]
    findings += asyncio.run(_cluster(settings))
    findings += asyncio.run(_broker(settings.rabbitmq))
    if parsed.output == "json":
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            print(f"{'ok  ' if finding.ok else 'FAIL'} {finding.check}: {finding.detail}")
    sys.stdout.flush()
    return 0 if all(finding.ok for finding in findings) else 1


async def _cluster(settings: Settings) -> list[Finding]:
    if settings.cluster == "memory":
        return [Finding("cluster", ok=True, detail="embedded; Jobs live in the process and build nothing")]
    from builder.adapters.kubernetes import KubernetesCluster  # noqa: PLC0415 -- a second and 60 MiB

    try:
        async with KubernetesCluster.open(settings.kubernetes, os.environ) as cluster:
            await cluster.probe()
            where = f"the API server answers; namespace {cluster.namespace}"
            missing = await cluster.missing_permissions()
            rehearsal = await _rehearsal(cluster, settings)
    except (StartError, ClusterError) as exc:
        return [Finding("cluster", ok=False, detail=str(exc))]
    return [
        Finding("cluster", ok=True, detail=where),
        Finding(
            "permissions", ok=not missing, detail=f"missing: {', '.join(missing)}" if missing else "all that are used"
        ),
        rehearsal,
    ]


async def _rehearsal(cluster: "KubernetesCluster", settings: Settings) -> Finding:
    """Would the API server, its quotas and its admission policies take a Job like ours?"""
    try:
        warnings = await cluster.rehearse(build_job(_REQUEST, settings))
    except AlreadyExists:
        warnings = ()
    except ClusterError as exc:
        return Finding("job", ok=False, detail=str(exc))
    warned = f", and warns: {'; '.join(warnings)}" if warnings else ""
    return Finding("job", ok=True, detail=f"the API server would take one (dry run){warned}")


async def _broker(settings: Rabbitmq) -> list[Finding]:
    if not settings.urls:
        return []
    from builder.adapters.rabbitmq import topology  # noqa: PLC0415 -- only who has a broker pays for it
    from builder.adapters.rabbitmq.connection import connected  # noqa: PLC0415 -- as above

    try:
        async with connected(settings) as connection:
            report = await topology.look(settings, connection)
    except BrokerError as exc:
        return [Finding("broker", ok=False, detail=str(exc))]
    problems = [f"{one.what} {one.problem}" for one in report.differences]
    detail = f"{'; '.join(problems)} (topology check says more)" if problems else "as wanted"
    return [
        Finding("broker", ok=True, detail="RabbitMQ answers"),
        Finding("topology", ok=not problems, detail=detail),
    ]
