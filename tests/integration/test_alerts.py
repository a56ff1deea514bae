"""The alerts, by promtool: when each fires, when it keeps silent, and that it leads somewhere."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.service import ROOT
from tests.unit.test_documents import anchors

pytestmark = pytest.mark.integration

RULES = yaml.safe_load((ROOT / "k8s/components/monitoring/alerts.yaml").read_text())["spec"]
ALERTS: list[dict[str, Any]] = [rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]
B = "knative_lambda_builder_"
POD = 'namespace="n",pod="p"'
UP = 'up{job="knative-lambda-builder",' + POD + "}"
QUEUE = 'rabbitmq_queue_messages_ready{namespace="r",queue="kaniko-jobs"}'
LETTERS = 'rabbitmq_queue_messages_ready{namespace="r",queue="kaniko-jobs.dlq"}'
STARTED = 'process_start_time_seconds{job="knative-lambda-builder",' + POD + "}"
SUCCESS = 'kaniko_job_creation_success_total{outcome="created",' + POD + "}"
FAILURE = 'kaniko_job_creation_failure_total{reason="forbidden",' + POD + "}"
RETRIES = "kaniko_job_creation_retries_total{" + POD + "}"
CREATION = "job_creation_duration_seconds"


def ours(name: str, **labels: str) -> str:
    """A series of the service's own."""
    own = "".join(f'{key}="{value}",' for key, value in labels.items())
    return f"{B}{name}{{{own}{POD}}}"


REFUSED, ACCEPTED = ours("events_refused_total", reason="queue_full"), ours("events_accepted_total", flow="queue")
DUPLICATE, REJECTED = ours("events_duplicate_total", flow="queue"), ours("events_rejected_total", reason="invalid")
WAITS, ENDED = ours("queue_items"), ours("events_ended_total", flow="queue", outcome="created")
COUNT, IN_TIME = f"{CREATION}_count{{{POD}}}", f'{CREATION}_bucket{{le="30.0",{POD}}}'
SUM = f"{CREATION}_sum{{{POD}}}"
NO_EVENT = {DUPLICATE: "0x999", REJECTED: "0x999"}


@dataclass(frozen=True)
class Case:
    """Series in promtool's notation, a value each minute, and all the alerts that fire at one moment."""

    name: str
    series: Mapping[str, str]
    at: str = "20m"
    firing: tuple[str, ...] = ()


CASES = [
    Case("idle: rates of nothing are no failure", {SUCCESS: "5x60", FAILURE: "0x60", SUM: "1x60", COUNT: "5x60"}),
    Case("queue over 1,000", {QUEUE: "1001x60"}, firing=("KanikoJobsHighQueueDepth",)),
    Case("queue of just 1,000", {QUEUE: "1000x60"}),
    Case("a burst that is over in four minutes", {QUEUE: "0x10 5000x3 0x60"}, at="14m"),
    Case("another queue over 1,000", {QUEUE.replace("kaniko-jobs", "others"): "9000x60"}),
    Case("6 % fail", {SUCCESS: "0+94x60", FAILURE: "0+6x60"}, firing=("KanikoJobsHighErrorRate",)),
    Case("just under 5 % fail", {SUCCESS: "0+96x60", FAILURE: "0+4x60"}),
    Case("31 s on average", {SUM: "0+310x60", COUNT: "0+10x60"}, firing=("KanikoJobsLongProcessingTime",)),
    Case("29 s on average", {SUM: "0+290x60", COUNT: "0+10x60"}),
    Case("long ago it was slow", {SUM: "0+310x20 6200x99", COUNT: "0+10x20 200x99"}, at="40m"),
    Case("a dead letter", {ours("dead_letters_total", kind="failed"): "0x15 1x60"}, firing=("KanikoJobsParkedEvents",)),
    Case("old dead letters", {ours("dead_letters_total", kind="failed"): "7x60"}),
    Case("a message is given up", {LETTERS: "3x15 4x60"}, firing=("KanikoJobsDeadLetterQueueGrows",)),
    Case("dead letters are looked after", {LETTERS: "9x15 3x60"}),
    Case("letters evicted", {ours("dead_letters_evicted_total"): "0x15 5x60"}, firing=("KanikoJobsDeadLettersLost",)),
    Case("letters evicted yesterday", {ours("dead_letters_evicted_total"): "5x60"}),
    Case("nobody to scrape", {UP: "1x10 _x60"}, firing=("BuilderDown",)),
    Case("down", {UP: "0x60"}, firing=("BuilderDown",)),
    Case("one of two down", {UP.replace('"p"', '"q"'): "0x60"}),
    Case("a rollout", {UP: "1x18 0 1x60", STARTED: "1000x18 2000x60"}),
    Case("crash loop", {STARTED: "1x10 2x3 3x3 4x60"}, firing=("BuilderCrashLooping",)),
    Case("81 % full", {WAITS: "81x60", ours("queue_capacity"): "100x60"}, firing=("BuilderQueueNearlyFull",)),
    Case("80 % full", {WAITS: "80x60", ours("queue_capacity"): "100x60"}),
    Case("full for four minutes", {WAITS: "0x10 99x3 0x60", ours("queue_capacity"): "100x60"}, at="14m"),
    Case("oldest over 5 min", {ours("queue_oldest_age_seconds"): "301x60"}, firing=("BuilderOldestItemTooOld",)),
    Case("oldest of 5 min", {ours("queue_oldest_age_seconds"): "300x60"}),
    Case("API server away", {ours("api_server_up"): "0x60"}, firing=("BuilderApiServerAway",)),
    Case("API server away for a minute", {ours("api_server_up"): "1x10 0 1x60"}, at="12m"),
    Case("broker away", {ours("broker_up"): "0x60"}, firing=("BuilderBrokerAway",)),
    Case("broker there", {ours("broker_up"): "1x60"}),
    Case("journal full", {ours("journal_writable"): "0x60"}, firing=("BuilderJournalNotWritable",)),
    Case("journal hiccups", {ours("journal_writable"): "1x19 0 1x60"}),
    Case("stuck", {WAITS: "3x60", ENDED: "7x60", RETRIES: "0x60"}, firing=("BuilderNoProgress",)),
    Case("at work", {WAITS: "3x60", ENDED: "0+1x60", RETRIES: "0x60"}),
    Case("at work, in vain", {WAITS: "3x60", ENDED: "7x60", RETRIES: "0+1x60"}),
    Case("nothing to do", {WAITS: "0x60", ENDED: "7x60", RETRIES: "0x60"}),
    Case(
        "stuck for a known reason",
        {WAITS: "3x60", ENDED: "7x60", RETRIES: "0x60", ours("api_server_up"): "0x60"},
        firing=("BuilderApiServerAway",),
    ),
    Case(
        "2 % refused for an hour",
        {REFUSED: "0+2x999", ACCEPTED: "0+98x999", **NO_EVENT},
        at="70m",
        firing=("BuilderAcceptBudget", "BuilderAcceptBudgetFast", "BuilderAcceptBudgetSlow"),
    ),
    Case(
        "1 % refused for hours",
        {REFUSED: "0+1x999", ACCEPTED: "0+99x999", **NO_EVENT},
        at="7h",
        firing=("BuilderAcceptBudget", "BuilderAcceptBudgetSlow"),
    ),
    Case(
        "0.2 % refused for hours",
        {REFUSED: "0+2x999", ACCEPTED: "0+998x999", **NO_EVENT},
        at="7h",
        firing=("BuilderAcceptBudgetSlow",),
    ),
    Case("0.05 % refused", {REFUSED: "0+5x999", ACCEPTED: "0+9995x999", **NO_EVENT}, at="7h"),
    Case("refused while draining", {REFUSED.replace("queue_full", "draining"): "0+9x99", ACCEPTED: "0+9x99", **NO_EVENT}),
    Case(
        "2 % refused an hour ago: the short window ends it",
        {REFUSED: "0+2x60 120x99", ACCEPTED: "0+98x200", **NO_EVENT},
        at="100m",
        firing=("BuilderAcceptBudgetSlow",),
    ),
    Case(
        "20 % late for an hour",
        {IN_TIME: "0+80x999", COUNT: "0+100x999"},
        at="70m",
        firing=("BuilderStartBudget", "BuilderStartBudgetFast", "BuilderStartBudgetSlow"),
    ),
    Case(
        "2 % late for hours", {IN_TIME: "0+98x999", COUNT: "0+100x999"}, at="7h", firing=("BuilderStartBudgetSlow",)
    ),
    Case("0.5 % late", {IN_TIME: "0+995x999", COUNT: "0+1000x999"}, at="7h"),
]  # fmt: skip


@pytest.fixture(scope="module")
def promtool() -> str:
    """Prometheus' own checker."""
    found = shutil.which("promtool")
    if found is None:
        absent = pytest.fail if "CI" in os.environ else pytest.skip
        absent("there is no promtool: scripts/setup-prometheus installs it")
    return found


def run(promtool: str, folder: Path, *command: str) -> None:
    """Run it on the rules."""
    (folder / "rules.json").write_text(json.dumps(RULES))
    ran = subprocess.run([promtool, *command], cwd=folder, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_rules_are_rules(promtool: str, tmp_path: Path) -> None:
    """Expressions and templates can be read."""
    run(promtool, tmp_path, "check", "rules", "rules.json")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_fires(case: Case, promtool: str, tmp_path: Path) -> None:
    """These alerts fire at this moment, and no other."""
    series = {UP: "1x999", **case.series} if UP not in case.series else case.series
    firing = {
        "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
        "eval_time": case.at,
        "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(case.firing)],
    }
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [firing],
    }
    whole = {"rule_files": ["rules.json"], "evaluation_interval": "1m", "tests": [test]}
    (tmp_path / "test.json").write_text(json.dumps(whole))
    run(promtool, tmp_path, "test", "rules", "test.json")


def test_each_alert_is_tested() -> None:
    """Firing at least once; where it would be silent, the other cases say."""
    assert {name for case in CASES for name in case.firing} == {alert["alert"] for alert in ALERTS}


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_each_alert_helps_whom_it_wakes(alert: dict[str, Any]) -> None:
    """A severity, what it means for users in a sentence, and a section of the runbook that names it."""
    assert alert["labels"]["severity"] in {"warning", "critical"}
    assert re.fullmatch(r"[A-Z].{20,}\.", alert["annotations"]["description"])
    place, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    assert place.endswith("/docs/runbook.md")
    assert anchor in anchors("docs/runbook.md")
    family = re.sub(r"Budget(|Slow)$", "BudgetFast", alert["alert"])
    assert f"`{family}`" in (ROOT / "docs/runbook.md").read_text()
