"""The dashboard and the alerts on a real Prometheus, which scrapes the running service and a real RabbitMQ under load."""

import asyncio
import json
import math
import os
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import dashboard
import prometheus
import pytest
import yaml
from broker import Broker

from tests.amqp_parts import Queue
from tests.broker_parts import Vhost
from tests.contract.harness import eventually
from tests.integration.messages import build_of
from tests.integration.service import ROOT, Service

pytestmark = pytest.mark.integration

RULES = yaml.safe_load((ROOT / "k8s/components/monitoring/alerts.yaml").read_text())["spec"]
QUERIES = [
    (f"{panel['title']}: {target['legendFormat']}", target["expr"])
    for panel in dashboard.dashboard()["panels"]
    for target in panel.get("targets", ())
]
MAY_BE_EMPTY = re.compile(r" > 0$")
"""Series that are shown where there is something to show; the load has something for each."""
METRIC = re.compile(r"\b((?:knative_lambda_builder|kaniko|job_creation|rabbitmq|process)_[a-z0-9_]+|up)\b(?!:)")


def test_the_file_is_what_the_code_says() -> None:
    """After a change: python scripts/dashboard.py."""
    assert dashboard.FILE.read_text() == dashboard.text()


@contextmanager
def watching(service: Service, broker: Broker) -> Iterator[prometheus.Prometheus]:
    """A Prometheus with our rules, and with the labels that the Prometheus operator gives."""
    place = {"namespace": "n", "pod": "p"}
    scrapes = [
        ("knative-lambda-builder", service.url.removeprefix("http://"), "/metrics"),
        ("rabbitmq-cluster", broker.metrics_address, "/metrics/per-object"),
    ]
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "scrape_configs": [
            {"job_name": job, "metrics_path": path, "static_configs": [{"targets": [target], "labels": place}]}
            for job, target, path in scrapes
        ],
    }
    with prometheus.Prometheus(config, RULES) as server:
        yield server


@asynccontextmanager
async def under_load(service: Service, queue: Queue) -> AsyncIterator[None]:
    """Events by HTTP and by AMQP; some twice, some that can never be built, some under a name that is taken."""

    async def send() -> None:
        for number in range(1_000_000):
            by_http, by_amqp = build_of(f"h{number}"), build_of(f"q{number}")
            bad, rival = build_of(f"b{number}"), build_of(f"r{number}")
            bad["data"]["priority"] = 99
            rival["data"] |= {"third_party_id": f"t{number}", "job_name": "one-name"}
            late = build_of(f"bad{number}")
            late["data"]["priority"] = 99
            await service.send(by_http, by_http, bad, rival)
            await queue.publish(by_amqp, late)
            await asyncio.sleep(0.2)

    task = asyncio.create_task(send())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.timeout(240)
async def test_every_panel_has_data_and_every_metric_is_there(vhost: Vhost, tmp_path: Path) -> None:
    """What a person on call looks at at night is not empty, and what wakes them looks at something."""
    if (why := prometheus.missing()) is not None:
        (pytest.fail if "CI" in os.environ else pytest.skip)(f"needs a real Prometheus: {why}")
    environ = vhost.environ | {"BUILDER_JOURNAL__PATH": str(tmp_path / "journal"), "BUILDER_LOGGING__FORMAT": "json"}
    async with Queue.declared(vhost) as queue:
        service = Service.spawn(tmp_path / "log", "--cluster=memory", "--port=0", environ=environ)
        try:
            await service.listening()
            with watching(service, vhost.broker) as server:
                async with under_load(service, queue):
                    await eventually(lambda: asyncio.to_thread(empty, server), lambda found: not found, 150)
                assert await asyncio.to_thread(unknown, server) == set()
                groups = (await asyncio.to_thread(server.get, "rules"))["groups"]
                assert {rule["health"] for group in groups for rule in group["rules"]} == {"ok"}
        finally:
            await service.close()


def empty(server: prometheus.Prometheus) -> list[str]:
    """The panels' queries that give nothing, or no number."""
    values = {"$namespace": "n", "$pod": ".*", "$__rate_interval": "20s"}
    found = []
    for title, expression in QUERIES:
        for variable, value in values.items():
            expression = expression.replace(variable, value)  # noqa: PLW2901 -- one after the other
        if not any(math.isfinite(value) for value in server.query(expression)):
            found.append(f"{title}: {expression}")
    return found


def unknown(server: prometheus.Prometheus) -> set[str]:
    """What alerts and panels name and nobody exports."""
    expressions = [rule["expr"] for group in RULES["groups"] for rule in group["rules"]]
    expressions += [expression for _, expression in QUERIES]
    expressions += [json.dumps(dashboard.dashboard()["templating"])]
    named = {name for expression in expressions for name in METRIC.findall(re.sub(r'"[^"]*"', '""', expression))}
    assert len(named) > 30
    return named - set(server.get("label/__name__/values"))
