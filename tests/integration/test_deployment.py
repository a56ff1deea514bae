"""The manifests: each overlay on a real API server with the real CRDs, and the service with exactly what they say."""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from control_plane import ControlPlane, ControlPlaneError

from builder.adapters.tracing import asked_for
from builder.events.routing import EVENT_TYPES
from builder.flow.topology import wanted
from builder.rabbitmq_settings import Rabbitmq
from builder.settings_sources import load
from tests.amqp_parts import Queue
from tests.broker_parts import Vhost
from tests.contract.harness import eventually
from tests.integration.messages import build_of
from tests.integration.namespace import Namespace
from tests.integration.rendered import K8S, OVERLAYS, Rendered, kind_of, labels_of, references, selected
from tests.integration.service import ROOT, Service, Services

pytestmark = pytest.mark.integration

FROM_OUTSIDE = {"Secret": {"rabbitmq-connection"}, "RabbitmqCluster": {"rabbitmq-cluster"}}
"""What an installation finds in the cluster or brings along; the overlays say so in their comments."""


@pytest.fixture(scope="session")
def cluster(plane: ControlPlane) -> Iterator[ControlPlane]:
    """A control plane that knows Knative, RabbitMQ, KEDA and the Prometheus operator by their CRDs."""
    folder = os.environ.get("CRD_DIR")
    if folder is None:
        pytest.skip("CRD_DIR names no folder with the CRDs of Knative, RabbitMQ, KEDA and the Prometheus operator")
    with ControlPlane(plane.binaries) as cluster:
        cluster.install_crds(Path(folder))
        for namespace in ("rabbitmq-dev", "rabbitmq-prod"):
            cluster.kubectl("create", "namespace", namespace)
        yield cluster


@pytest.fixture(params=OVERLAYS)
def rendered(request: pytest.FixtureRequest, plane: ControlPlane) -> Rendered:
    """Each overlay."""
    return Rendered.of(request.param, plane)


@pytest.mark.timeout(180)
def test_applied_twice_changes_nothing(rendered: Rendered, cluster: ControlPlane) -> None:
    """Strictly: a field that nobody knows is an error. The second time, every object stays as it was."""
    overlay = "-k", str(K8S / "overlays" / rendered.name)

    def applied() -> dict[str, str]:
        cluster.kubectl("apply", "--validate=strict", *overlay)
        found = json.loads(cluster.kubectl("get", "-o=json", *overlay))["items"]
        return {
            f"{one['apiVersion']} {one['kind']} {one['metadata']['name']}": one["metadata"]["resourceVersion"]
            for one in found
        }

    first = applied()
    assert len(first) == len(rendered.objects)
    assert applied() == first


def test_every_name_exists(rendered: Rendered) -> None:
    """What one object refers to is another object, or something that the overlay says it needs."""
    for one in rendered.objects:
        for kind, namespace, name in references(one):
            if name not in FROM_OUTSIDE.get(kind, ()):
                assert (namespace, name) in rendered.names(kind), f"{kind_of(one)} needs {kind} {namespace}/{name}"


def test_every_selector_finds_the_service(rendered: Rendered) -> None:
    """Services, budgets, policies and monitors mean Pods and Services that there are."""
    pod, builds = (
        labels_of(rendered.pod),
        {"app.kubernetes.io/managed-by": "knative-lambda-builder", "app.kubernetes.io/component": "build"},
    )
    for service in rendered.all("Service"):
        assert selected(service["spec"]["selector"], pod)
    for budget in rendered.all("PodDisruptionBudget"):
        assert selected(budget["spec"]["selector"]["matchLabels"], pod)
    for policy in rendered.all("NetworkPolicy"):
        assert any(selected(policy["spec"]["podSelector"]["matchLabels"], labels) for labels in (pod, builds))
    for monitor in rendered.all("ServiceMonitor"):
        labels = [labels_of(service) for service in rendered.all("Service")] + [
            {"app.kubernetes.io/name": "rabbitmq-cluster"}
        ]
        assert any(selected(monitor["spec"]["selector"]["matchLabels"], one) for one in labels)


def test_namespaces_enforce_what_builds_keep(rendered: Rendered) -> None:
    """Pod Security baseline, and the service's own Pod is within "restricted"."""
    (namespace,) = rendered.all("Namespace")
    assert namespace["metadata"]["name"] == rendered.namespace
    assert labels_of(namespace)["pod-security.kubernetes.io/enforce"] == "baseline"


def test_the_services_pod_is_within_restricted(rendered: Rendered, plane: ControlPlane) -> None:
    """Non-root, nothing to gain, a read-only root: by the API server's own judgement."""
    if rendered.workload["kind"] == "Service":
        pytest.skip("Knative makes the Pod of a Knative Service")
    name = plane.create_namespace("restricted")
    plane.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    plane.kubectl("create", "-n", name, "serviceaccount", rendered.pod["spec"]["serviceAccountName"])
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": name},
        "spec": rendered.pod["spec"],
    }
    claims = rendered.workload["spec"].get("volumeClaimTemplates", [])
    volumes = [{"name": claim["metadata"]["name"], "emptyDir": {}} for claim in claims]
    pod["spec"] = pod["spec"] | {"volumes": [*pod["spec"]["volumes"], *volumes]}
    plane.kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", input=json.dumps(pod))
    assert rendered.container["securityContext"]["readOnlyRootFilesystem"] is True


def test_settings_are_accepted(rendered: Rendered, tmp_path: Path) -> None:
    """Each key of the ConfigMaps is one that the service knows, and they fit together and to the Pod."""
    settings = load(rendered.configuration(tmp_path))
    spec = rendered.pod["spec"]
    grace = spec.get("terminationGracePeriodSeconds", spec.get("timeoutSeconds"))
    assert settings.async_job_creator.drain_timeout < grace
    (port,) = rendered.container["ports"]
    assert settings.server.port == port["containerPort"]
    assert settings.kaniko.service_account in {name for _, name in rendered.names("ServiceAccount")}
    assert settings.build.runtimes_config_map in {name for _, name in rendered.names("ConfigMap")}
    mounts = {mount["mountPath"] for mount in rendered.container["volumeMounts"]}
    assert settings.journal.path is not None
    assert (settings.custody == "journal") == (str(Path(settings.journal.path).parent) in mounts)
    languages = {runtime.language for runtime in settings.build.runtimes.values()}
    assert {f"{language}.Dockerfile" for language in languages} == rendered.config_map("knative-lambda-runtimes").keys()


def test_settings_are_in_the_words_of_004(rendered: Rendered) -> None:
    """The two YAML blocks of the specification stand in the file, word for word."""
    tree = yaml.safe_load(rendered.config_map("knative-lambda-builder-settings")["settings.yaml"])
    assert tree["rabbitmq"] == {
        "clusterName": "rabbitmq-cluster",
        "namespace": "rabbitmq-dev",
        "connectionSecretName": "rabbitmq-connection",
        "queues": {
            "kanikoJobs": {
                "name": "kaniko-jobs",
                "durable": True,
                "autoDelete": False,
                "messageTtl": 86400000,
                "maxLength": 10000,
                "overflow": "drop-head",
            }
        },
    }
    creator = {"workerCount": 5, "maxRetries": 3, "retryDelay": "100ms", "maxQueueSize": 100}
    assert creator.items() <= tree["asyncJobCreator"].items()


@pytest.mark.parametrize("overlay", ["knative", "amqp"])
def test_the_brokers_objects_are_our_topology(overlay: str, plane: ControlPlane) -> None:
    """What the topology operator makes is what ``topology check`` wants to see."""
    rendered, topology = Rendered.of(overlay, plane), wanted(Rabbitmq())
    specs = {kind: [one["spec"] for one in rendered.all(kind)] for kind in ("Exchange", "Queue", "Binding")}
    assert {(one["name"], one["type"]) for one in specs["Exchange"]} == {
        (one.name, one.type) for one in topology.exchanges
    }
    queues = {one["name"]: {"x-queue-type": one["type"], **one["arguments"]} for one in specs["Queue"]}
    assert queues == {one.name: dict(one.arguments) for one in topology.queues}
    bindings = {(one["source"], one["destination"], one.get("routingKey", "")) for one in specs["Binding"]}
    assert bindings == {(one.exchange, one.queue, one.routing_key) for one in topology.bindings}


def test_the_trigger_outlasts_a_full_queue(plane: ControlPlane) -> None:
    """004's filter, and a delivery that neither loses nor waits too short (README: Brokers)."""
    rendered = Rendered.of("dev", plane)
    (trigger,) = rendered.all("Trigger")
    spec = trigger["spec"]
    assert trigger["metadata"]["name"] == "kaniko-jobs-trigger"
    assert spec["filter"]["attributes"] == {
        "type": "network.notifi.lambda.job.start",
        "source": "network.notifi.kaniko-jobs",
    }
    assert spec["filter"]["attributes"]["type"] in EVENT_TYPES
    assert (spec["delivery"]["retry"] >= 8, spec["delivery"]["backoffDelay"]) == (True, "PT1S")
    assert spec["delivery"]["timeout"] == "PT10S"
    assert int(trigger["metadata"]["annotations"]["rabbitmq.eventing.knative.dev/parallelism"]) > 1


def test_the_names_of_004(cluster: ControlPlane) -> None:
    """Each command of its troubleshooting finds its object; the one about a ksvc needs the overlay ``serving``."""
    cluster.kubectl("apply", "-k", str(K8S / "overlays" / "dev"))
    cluster.kubectl("get", "queue", "kaniko-jobs", "-n", "rabbitmq-dev")
    cluster.kubectl("get", "trigger", "kaniko-jobs-trigger", "-n", "knative-lambda-dev")
    cluster.kubectl("get", "deployment/knative-lambda-builder", "-n", "knative-lambda-dev")
    service = json.loads(
        cluster.kubectl("get", "service", "knative-lambda-builder-dev", "-n", "knative-lambda-dev", "-o=json")
    )
    assert [port["port"] for port in service["spec"]["ports"]] == [80]
    cluster.kubectl("apply", "-k", str(K8S / "overlays" / "serving"))
    cluster.kubectl("get", "ksvc", "knative-lambda-builder-dev", "-n", "knative-lambda-dev")


def test_prod_refuses_a_tag(cluster: ControlPlane) -> None:
    """However it comes there: an image is named by its digest, or the API server says what to do."""
    cluster.kubectl("apply", "-k", str(K8S / "overlays" / "prod"))
    set_image = "set", "image", "deployment/knative-lambda-builder", "-n=knative-lambda-prod", "--dry-run=server"

    def refusal(image: str) -> str:
        try:
            return cluster.kubectl(*set_image, f"builder={image}") and ""
        except ControlPlaneError as exc:
            return str(exc)

    deadline = time.monotonic() + 30  # the API server takes up a new policy in its own time
    while not (words := refusal("registry.example.com/knative-lambda-builder:0.1.0")):
        assert time.monotonic() < deadline, "a tag was let in"
    assert "is named by its digest, not by a tag (scripts/pin-image)" in words
    assert refusal(f"registry.example.com/knative-lambda-builder@sha256:{'a' * 64}") == ""


def test_prod_runs_the_image_that_was_pushed(plane: ControlPlane, tmp_path: Path) -> None:
    """`scripts/pin-image` takes a name and a digest, and nothing else."""
    for part in ("k8s", "builder/runtimes", "scripts/pin-image"):
        target = tmp_path / part
        target.parent.mkdir(exist_ok=True)
        (shutil.copytree if (ROOT / part).is_dir() else shutil.copy)(ROOT / part, target)
    overlay = tmp_path / "k8s/overlays/prod"

    def pin(image: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([tmp_path / "scripts/pin-image", image], capture_output=True, text=True, check=False)

    before = plane.kubectl("kustomize", str(overlay))
    for tag in ("", "registry.example.com/builder:0.1.0", "builder@sha256:abc", "registry.example.com/builder@sha256:"):
        assert pin(tag).returncode == 2
        assert f"'{tag}' does not name an image by its digest" in pin(tag).stderr
    assert plane.kubectl("kustomize", str(overlay)) == before
    pushed = f"registry.example.com:5000/team/builder@sha256:{'0123456789abcdef' * 4}"
    for _ in range(2):
        assert pin(pushed).returncode == 0
        assert (
            Rendered("prod", list(yaml.safe_load_all(plane.kubectl("kustomize", str(overlay))))).container["image"]
            == pushed
        )


@pytest.mark.timeout(120)
def test_with_tracing_the_collector_is_in_reach(cluster: ControlPlane, tmp_path: Path) -> None:
    """The component fits on the base: the API server takes it strictly, and what is asked for is what is let out."""
    component, base = (os.path.relpath(K8S / part, tmp_path) for part in ("components/tracing", "base"))
    (tmp_path / "kustomization.yaml").write_text(
        json.dumps({"namespace": "traced", "resources": [base], "components": [component]})
    )
    cluster.kubectl("apply", "--validate=strict", "-k", str(tmp_path))
    rendered = Rendered("traced", list(yaml.safe_load_all(cluster.kubectl("kustomize", str(tmp_path)))))
    environ = rendered.config_map("knative-lambda-builder-environment")
    assert asked_for(environ) == "OTEL_EXPORTER_OTLP_ENDPOINT"
    collector = httpx.URL(environ["OTEL_EXPORTER_OTLP_ENDPOINT"])
    (policy,) = [one for one in rendered.all("NetworkPolicy") if one["metadata"]["name"].endswith("-tracing")]
    assert selected(policy["spec"]["podSelector"]["matchLabels"], labels_of(rendered.pod))
    (rule,) = policy["spec"]["egress"]
    assert [port["port"] for port in rule["ports"]] == [collector.port]
    (place,) = [one["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for one in rule["to"]]
    assert collector.host.endswith(f".{place}")


def test_the_knative_service_runs_the_same_container(plane: ControlPlane) -> None:
    """It is written out a second time: it differs where Knative wants it to, and nowhere else."""
    same = ("image", "args", "env", "envFrom", "resources")
    base, serving = Rendered.of("monitoring", plane).container, Rendered.of("serving", plane).container
    environment = re.compile(r"-[a-z0-9]{10}$")
    named = [json.loads(environment.sub("", json.dumps({key: one[key] for key in same}))) for one in (base, serving)]
    for one in named:
        one["envFrom"] = [environment.sub("", source["configMapRef"]["name"]) for source in one["envFrom"]]
    assert named[0] == named[1]


async def deployed(
    overlay: str, cluster: ControlPlane, services: Services, folder: Path, **environ: str
) -> tuple[Rendered, Namespace, Service]:
    """The service as its Pod would run it: the account's own bound token, the settings' file, the variables."""
    cluster.kubectl("apply", "-k", str(K8S / "overlays" / overlay))
    rendered = Rendered.of(overlay, cluster)
    namespace = Namespace(cluster, rendered.namespace)
    token = await namespace.kubectl("create", "token", rendered.pod["spec"]["serviceAccountName"])
    configuration = rendered.configuration(folder) | environ
    service = services.spawn(
        namespace,
        f"--config={configuration.pop('BUILDER_CONFIG')}",
        kubeconfig=namespace.kubeconfig(folder / "kubeconfig", token=token.strip()),
        environ=configuration,
    )
    await service.listening()
    return rendered, namespace, service


@pytest.mark.parametrize("overlay", ["statefulset", "serving", "dev"])
@pytest.mark.timeout(120)
async def test_the_service_runs_as_deployed(
    overlay: str, cluster: ControlPlane, services: Services, tmp_path: Path
) -> None:
    """With the rendered Role, ConfigMaps and probes, from an event to its Pod; each path in a manifest is served."""
    rendered, namespace, service = await deployed(overlay, cluster, services, tmp_path)
    assert await service.statuses(build_of(f"from-{overlay}")) == [202]
    assert (await service.ended(f"from-{overlay}"))["status"] == "created"
    await eventually(lambda: namespace.read("pods", "-l=app.kubernetes.io/component=build"), bool)
    assert await namespace.events("FailedCreate") == []
    probes = [
        rendered.container[probe]
        for probe in ("livenessProbe", "readinessProbe", "startupProbe")
        if probe in rendered.container
    ]
    paths = {probe["httpGet"]["path"] for probe in probes}
    paths |= {
        end["path"]
        for one in rendered.all("ServiceMonitor")
        for end in one["spec"]["endpoints"]
        if end["port"] == "http"
    }
    for path in paths:
        assert (await service.http.get(path)).status_code == httpx.codes.OK, path
    sinks = [
        one["spec"]["delivery"]["deadLetterSink"]["uri"] for kind in ("Broker", "Trigger") for one in rendered.all(kind)
    ]
    for path in sinks:
        assert (await service.http.post(path)).status_code != httpx.codes.NOT_FOUND, path


@pytest.mark.parametrize("overlay", ["amqp", "prod"])
@pytest.mark.timeout(120)
async def test_the_consumer_runs_as_deployed(
    overlay: str, cluster: ControlPlane, services: Services, tmp_path: Path, vhost: Vhost
) -> None:
    """From a message in a real broker's queue to its Pod; over HTTP nothing is taken in."""
    async with Queue.declared(vhost) as queue:
        url = {"BUILDER_RABBITMQ__URL": vhost.url}
        rendered, namespace, service = await deployed(overlay, cluster, services, tmp_path, **url)
        await queue.publish(build_of(f"from-{overlay}"))
        await eventually(lambda: namespace.read("pods", "-l=app.kubernetes.io/component=build"), bool)
        assert (await service.ended(f"from-{overlay}"))["status"] == "created"
        await eventually(queue.count, lambda count: count == 0)
        assert await service.statuses(build_of("over-http")) == [httpx.codes.SERVICE_UNAVAILABLE]
        probe = rendered.container["readinessProbe"]["httpGet"]["path"]
        assert (await service.http.get(probe)).status_code == httpx.codes.OK
