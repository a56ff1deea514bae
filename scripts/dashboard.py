"""Writes the Grafana dashboard: `python scripts/dashboard.py`. What it shows stands in ROWS, once.

The file is a part of `k8s/components/monitoring`. `tests/integration/test_dashboard.py` asks a real Prometheus for the
data of every panel.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[1] / "k8s" / "components" / "monitoring" / "dashboard.json"
WIDTH, HEIGHT = 24, 7
"""Grafana's grid, and a panel's height in it."""

OURS = '{namespace="$namespace",pod=~"$pod"}'
QUEUES = '{queue=~"kaniko-jobs(.dlq)?"}'
B = "knative_lambda_builder_"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True)
class Panel:
    """A title, the unit in Grafana's word, and queries by their legends."""

    title: str
    unit: str
    queries: dict[str, str]
    says: str = ""


def rate(metric: str, *by: str) -> str:
    """Of a counter, a second."""
    return f"sum by ({', '.join(by)}) (rate({metric}{OURS}[$__rate_interval]))"


def now(metric: str, how: str = "sum", *by: str) -> str:
    """Of a gauge."""
    return f"{how} by ({', '.join(by)}) ({metric}{OURS})"


def times(histogram: str) -> dict[str, str]:
    """The mean and the quantiles of a histogram."""
    buckets, seconds, count = (
        f"rate({histogram}_{part}{OURS}[$__rate_interval])" for part in ("bucket", "sum", "count")
    )
    quantiles = {
        f"p{percent}": f"histogram_quantile({percent / 100}, sum by (le) ({buckets}))" for percent in (50, 95, 99)
    }
    return {"mean": f"sum({seconds}) / sum({count})"} | quantiles


ROWS: dict[str, list[Panel]] = {
    "Accept": [
        Panel(
            "Events",
            "cps",
            {
                "accepted {{flow}}": rate(f"{B}events_accepted_total", "flow"),
                "duplicate {{flow}}": rate(f"{B}events_duplicate_total", "flow"),
                "rejected": rate(f"{B}events_rejected_total"),
                "refused {{reason}}": rate(f"{B}events_refused_total", "reason"),
            },
            "Rejected can never be built and is kept as a dead letter; refused may come again.",
        ),
        Panel("HTTP answers", "cps", {"{{class}}": rate(f"{B}http_responses_total", "class")}, "Probes included."),
    ],
    "Queue": [
        Panel(
            "Events that wait for a worker",
            "short",
            {"waiting": now(f"{B}queue_items"), "capacity": now(f"{B}queue_capacity")},
        ),
        Panel("Oldest of them", "s", {"{{pod}}": now(f"{B}queue_oldest_age_seconds", "max", "pod")}),
        Panel("Set aside, by what for", "short", {"{{wait}}": now(f"{B}waiting_items", "sum", "wait")}),
    ],
    "Workers": [
        Panel("Workers", "short", {"busy": now(f"{B}workers_busy"), "all": now(f"{B}workers")}),
        Panel("Events that ended", "cps", {"{{outcome}}": rate(f"{B}events_ended_total", "outcome")}),
        Panel("From acceptance to the Job", "s", times("job_creation_duration_seconds"), "Waiting included."),
    ],
    "Kubernetes": [
        Panel(
            "The API server answers",
            "bool_yes_no",
            {"{{pod}}": now(f"{B}api_server_up", "min", "pod")},
        ),
        Panel(
            "Calls",
            "cps",
            {
                "{{call}} {{answer}}": f"{rate(f'{B}api_calls_total', 'call', 'answer')} > 0",
                "tried again": rate("kaniko_job_creation_retries_total"),
            },
        ),
        Panel("One try", "s", times("kaniko_job_api_duration_seconds")),
        Panel("Names that were taken", "cps", {"{{decision}}": rate("kaniko_job_conflicts_total", "decision")}),
    ],
    "RabbitMQ": [
        Panel(
            "Messages",
            "short",
            {
                "{{queue}} ready": f"max by (queue) (rabbitmq_queue_messages_ready{QUEUES})",
                "{{queue}} unacked": f"max by (queue) (rabbitmq_queue_messages_unacked{QUEUES})",
                "held by builders": now(f"{B}messages_held"),
            },
        ),
        Panel(
            "Messages settled",
            "cps",
            {
                "{{answer}}": rate(f"{B}messages_total", "answer"),
                "had been with somebody": rate(f"{B}messages_redelivered_total"),
            },
        ),
        Panel("Age at the ack", "s", times(f"{B}message_age_seconds")),
        Panel("Consuming", "bool_yes_no", {"{{pod}}": now(f"{B}broker_up", "min", "pod")}),
    ],
    "Dead letters": [
        Panel(
            "New, by reason",
            "short",
            {
                "rejected: {{reason}}": f"sum by (reason) (increase({B}events_rejected_total{OURS}[1h])) > 0",
                "failed: {{reason}}": f"sum by (reason) (increase(kaniko_job_creation_failure_total{OURS}[1h])) > 0",
            },
            "In the last hour.",
        ),
        Panel(
            "Kept",
            "short",
            {
                "in the last hour": f"sum(increase({B}dead_letters_total{OURS}[1h]))",
                "confirmed by RabbitMQ": f"sum(increase({B}message_dead_letters_total{OURS}[1h]))",
                "thrown away": f"sum(increase({B}dead_letters_evicted_total{OURS}[1h]))",
            },
        ),
        Panel("The journal can be written", "bool_yes_no", {"{{pod}}": now(f"{B}journal_writable", "min", "pod")}),
    ],
    "Service levels": [
        Panel(
            f"{title}, of the goal of {goal:.1%}",
            "percentunit",
            {
                window: f'1 - {B[:-1]}:{level}_errors:ratio_rate{window}{{namespace="$namespace"}}'
                for window in ("1h", "3d")
            },
        )
        for title, level, goal in (
            ("Events not told to come again", "accept", 0.999),
            ("Builds that start within 30 s", "start", 0.99),
        )
    ],
    "Process": [
        Panel("CPU", "short", {"{{pod}}": rate("process_cpu_seconds_total", "pod")}, "In cores."),
        Panel("Memory", "bytes", {"{{pod}}": now("process_resident_memory_bytes", "sum", "pod")}),
        Panel("Since the start", "s", {"{{pod}}": f"time() - max by (pod) (process_start_time_seconds{OURS})"}),
    ],
}


def dashboard() -> dict[str, Any]:
    """As Grafana imports it."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS.items():
        panels.append({"type": "row", "title": title, "gridPos": _at(0, top, WIDTH, 1), "panels": []})
        width = WIDTH // len(row)
        panels += [_panel(panel, _at(width * place, top + 1, width, HEIGHT)) for place, panel in enumerate(row)]
        top += HEIGHT + 1
    for number, panel in enumerate(panels, start=1):
        panel["id"] = number
    return {
        "uid": "knative-lambda-builder",
        "title": "knative-lambda-builder",
        "tags": ["knative", "kaniko"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": _variables()},
        "panels": panels,
    }


def _at(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": width, "h": height}


def _panel(panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    targets = [
        {
            "refId": chr(ord("A") + number),
            "datasource": SOURCE,
            "expr": expr,
            "legendFormat": legend,
            "exemplar": "histogram_quantile" in expr,
        }
        for number, (legend, expr) in enumerate(panel.queries.items())
    ]
    return {
        "type": "timeseries",
        "title": panel.title,
        "description": panel.says,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "custom": {"fillOpacity": 10}}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": targets,
    }


def _variables() -> list[dict[str, Any]]:
    up = 'up{job="knative-lambda-builder"'
    namespace = f"label_values({up}}}, namespace)"
    pod = f'label_values({up},namespace="$namespace"}}, pod)'
    return [
        {"name": "datasource", "type": "datasource", "query": "prometheus"},
        {"name": "namespace", "type": "query", "datasource": SOURCE, "query": namespace, "refresh": 2},
        {
            "name": "pod",
            "type": "query",
            "datasource": SOURCE,
            "query": pod,
            "refresh": 2,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
        },
    ]


def text() -> str:
    """The file's content."""
    return json.dumps(dashboard(), indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(text())
    print(f"{FILE.relative_to(FILE.parents[3])}: {sum(map(len, ROWS.values()))} panels")
