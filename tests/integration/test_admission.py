"""What stands between us and a stored Job on other people's clusters: webhooks that change or deny, and flow control."""

import json
import ssl
from pathlib import Path

import httpx
import pytest

from builder.models import Manifest
from tests.contract.harness import a_job, eventually
from tests.integration.messages import build_of
from tests.integration.namespace import Namespace
from tests.integration.service import Services
from tests.integration.test_failures import ALL_THAT_IS_USED, fails
from tests.integration.webhook import ALLOWED, Verdict, changed, denied, webhook

pytestmark = pytest.mark.integration

SIDE_CAR = {"name": "mesh", "image": "registry.example.com/mesh:v1"}


def a_mesh(_job: Manifest) -> Verdict:
    """A label, an annotation, a side-car before our container, and another priority."""
    template = "/spec/template"
    return changed(
        {"op": "add", "path": "/metadata/labels/mesh.example.com~1injected", "value": "true"},
        {"op": "add", "path": "/metadata/annotations/mesh.example.com~1version", "value": "1"},
        {"op": "add", "path": f"{template}/metadata/labels/mesh.example.com~1injected", "value": "true"},
        {"op": "add", "path": f"{template}/spec/containers/0", "value": SIDE_CAR},
        {"op": "replace", "path": "/spec/ttlSecondsAfterFinished", "value": 60},
    )


async def in_force(namespace: Namespace, words: str) -> None:
    """Return when the API server asks the webhook: it learns of one a moment after it is configured."""
    probe = json.dumps(a_job("probe"))

    async def says() -> str:
        try:
            return await namespace.kubectl("create", "--dry-run=server", "-o=json", "-f", "-", stdin=probe)
        except Exception as exc:  # noqa: BLE001 -- kubectl's complaint is what is waited for
            return str(exc)

    await eventually(says, lambda text: words in text)


async def test_a_webhook_that_changes_jobs(namespace: Namespace, services: Services) -> None:
    """Whatever it adds, the Job is ours: another replica adopts it, a later event replaces it, and a stranger none."""
    one, other = [await services.start(namespace, asyncJobCreator={"maxRetryDelay": "200ms"}) for _ in range(2)]
    with webhook(namespace, "Mutating", a_mesh):
        await in_force(namespace, "mesh.example.com/injected")
        await one.send(build_of("parser1"))
        created = await one.ended("parser1")
        await other.send(build_of("parser1"))
        adopted = await other.ended("parser1")
        await other.send(build_of("parser1", "before") | {"time": "2023-01-01T00:00:00Z"})
        superseded = await other.ended("before")
    (job,) = (await namespace.jobs()).values()

    assert [result["status"] for result in (created, adopted, superseded)] == ["created", "adopted", "superseded"]
    assert created["image"] == adopted["image"]
    assert [container["name"] for container in job["spec"]["template"]["spec"]["containers"]] == ["mesh", "kaniko"]


@pytest.mark.parametrize(("code", "reason"), [(400, "invalid_job"), (403, "forbidden"), (422, "invalid_job")])
async def test_a_webhook_that_denies(namespace: Namespace, services: Services, code: int, reason: str) -> None:
    """A policy of the cluster: no retry can help, and its own words are in the dead letter."""
    service = await services.start(namespace)
    with webhook(namespace, "Validating", lambda _: denied("images must come from registry.internal", code)):
        await in_force(namespace, "registry.internal")
        message = await fails(service, reason)

    hook = f"validating.{namespace.name}.example.com"
    assert message == f'admission webhook "{hook}" denied the request: images must come from registry.internal'
    assert await namespace.jobs() == {}


async def test_a_webhook_that_is_broken_for_a_while(namespace: Namespace, services: Services) -> None:
    """500 "failed calling webhook": that passes, and the event is built when it has."""
    broken = True

    def decide(_job: Manifest) -> Verdict:
        return {} if broken else ALLOWED

    service = await services.start(namespace, asyncJobCreator={"maxRetries": 100, "maxRetryDelay": "200ms"})
    with webhook(namespace, "Validating", decide):
        await in_force(namespace, "webhook")
        await service.send(build_of("parser1"))
        await eventually(service.stats, lambda stats: stats["retries"] >= 2)
        broken = False
        result = await service.ended("parser1")

    assert "failed calling webhook" in service.logged("item_waits")[0]["why"]
    assert (result["status"], len(await namespace.jobs())) == ("created", 1)


async def test_flow_control(namespace: Namespace, services: Services, tmp_path: Path) -> None:
    """API Priority and Fairness lets in one request of ours at a time: 429 in plain text to the others.

    All are built in the end. The probe is not held back, so this is no outage.
    """
    token = await namespace.service_account(may=ALL_THAT_IS_USED)
    kubeconfig = namespace.kubeconfig(tmp_path / "builder", token=token)
    policy = {"workerCount": 20, "maxRetries": 100, "maxRetryDelay": "200ms"}
    service = await services.start(namespace, kubeconfig=kubeconfig, asyncJobCreator=policy)
    await namespace.create(*no_seat_for(namespace))
    try:
        schema = (await namespace.kubectl("get", "flowschema", namespace.name, "-o=jsonpath={.metadata.uid}")).strip()
        await eventually(lambda: flow_schema_of(namespace, token), lambda uid: uid == schema)
        await service.send(*(build_of(f"parser{number}") for number in range(60)))
        stats = await service.all_done(60, within=60)
    finally:
        await namespace.kubectl("delete", "flowschema,prioritylevelconfiguration", namespace.name)

    assert stats["retries"] == stats["api_calls"]["create"]["transient"] > 0
    assert {line["why"] for line in service.logged("item_waits")} == {"Too many requests, please try again later."}
    assert min(line["seconds"] for line in service.logged("item_waits")) >= 1, "its Retry-After"
    assert (stats["outcomes"]["created"], stats["api_server"]["outages"]) == (60, 0)
    assert len(await namespace.jobs()) == 60


def no_seat_for(namespace: Namespace) -> list[Manifest]:
    """Flow control for the namespace's service account: none of its requests is let in while another is under way."""
    api, name = "flowcontrol.apiserver.k8s.io/v1", {"name": namespace.name}
    limits = {"nominalConcurrencyShares": 0, "borrowingLimitPercent": 0, "limitResponse": {"type": "Reject"}}
    level = {"type": "Limited", "limited": limits}
    account = {"kind": "ServiceAccount", "serviceAccount": {"namespace": namespace.name, "name": "builder"}}
    rules = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"], "namespaces": ["*"], "clusterScope": True}]
    schema = {
        "priorityLevelConfiguration": name,
        "matchingPrecedence": 2,
        "rules": [{"subjects": [account], "resourceRules": rules}],
    }
    return [
        {"apiVersion": api, "kind": "PriorityLevelConfiguration", "metadata": name, "spec": level},
        {"apiVersion": api, "kind": "FlowSchema", "metadata": name, "spec": schema},
    ]


async def flow_schema_of(namespace: Namespace, token: str) -> str:
    """The uid of the one that the API server puts the account's requests under."""
    path = f"/apis/batch/v1/namespaces/{namespace.name}/jobs/none"
    async with httpx.AsyncClient(
        verify=ssl.create_default_context(cafile=str(namespace.plane.ca_file)), trust_env=False
    ) as http:
        answer = await http.get(f"{namespace.plane.url}{path}", headers={"Authorization": f"Bearer {token}"})
    return answer.headers["X-Kubernetes-PF-FlowSchema-UID"]
