"""Settings: every mistake is named by its full key, and nothing is taken for something else."""

from pathlib import Path

import pytest
import yaml

from builder.errors import SettingsError
from builder.rabbitmq_settings import Rabbitmq
from builder.settings_sources import load, validate
from tests import building

MEMORY = {"cluster": "memory"}


def test_a_start_with_nothing_set() -> None:
    """004's defaults hold on the embedded cluster."""
    policy = load({}, flags=MEMORY).async_job_creator
    assert (policy.worker_count, policy.max_retries, policy.retry_delay, policy.max_queue_size) == (5, 3, 0.1, 100)


def test_what_has_no_right_default_is_asked_for() -> None:
    """Nobody can guess where images are pushed to on a real cluster."""
    with pytest.raises(SettingsError, match=r"kaniko\.registry is not set.*BUILDER_KANIKO__REGISTRY"):
        load({})


def test_flags_over_variables_over_port_over_file(tmp_path: Path) -> None:
    """Whoever is nearer to the person wins."""
    file = tmp_path / "settings.yaml"
    file.write_text("cluster: memory\nserver: {host: 127.0.0.1, port: 1}\nasyncJobCreator: {workerCount: 7}\n")
    assert load({}, str(file)).server.port == 1
    assert load({"BUILDER_CONFIG": str(file)}).async_job_creator.worker_count == 7
    assert load({"PORT": "2"}, str(file)).server.port == 2
    assert load({"PORT": "2", "BUILDER_SERVER__PORT": "3"}, str(file)).server.port == 3
    settings = load({"PORT": "2", "BUILDER_SERVER__PORT": "3"}, str(file), {"server.port": 4, "server.host": None})
    assert (settings.server.port, settings.server.host) == (4, "127.0.0.1")


def test_variables_of_every_kind() -> None:
    """Numbers, durations, words, truth and lists as JSON."""
    settings = load(
        {
            "BUILDER_CLUSTER": "memory",
            "BUILDER_ASYNC_JOB_CREATOR__WORKER_COUNT": "20",
            "BUILDER_ASYNC_JOB_CREATOR__RETRY_DELAY": "250ms",
            "BUILDER_KANIKO__CACHE": "false",
            "BUILDER_KANIKO__LIMITS__MEMORY": "4Gi",
            "BUILDER_INTAKE__ALLOWED_SOURCE_HOSTS": '["git.example.com"]',
            "BUILDER_BUILD__RUNTIMES": '{"nodejs24": {"language": "nodejs", "baseImage": "node:24"}}',
            "HOME": "/nowhere",
        }
    )
    assert settings.async_job_creator.worker_count == 20
    assert settings.async_job_creator.retry_delay == 0.25
    assert settings.kaniko.cache is False
    assert (settings.kaniko.limits.memory, settings.kaniko.limits.cpu) == ("4Gi", "2")
    assert settings.intake.allowed_source_hosts == ("git.example.com",)
    assert settings.build.runtimes["nodejs24"].base_image == "node:24"


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"asyncJobCreator": {"workercount": 5}}, "asyncJobCreator.workercount: no such setting; did you mean asyncJobCreator.workerCount?"),
        ({"wrokers": 5}, "wrokers: no such setting"),
        ({"asyncJobCreator": {"workerCount": True}}, "asyncJobCreator.workerCount: Input should be a valid integer (is True; variable BUILDER_ASYNC_JOB_CREATOR__WORKER_COUNT)"),
        ({"asyncJobCreator": {"workerCount": "5"}}, "asyncJobCreator.workerCount: Input should be a valid integer (is '5'; variable BUILDER_ASYNC_JOB_CREATOR__WORKER_COUNT)"),
        ({"asyncJobCreator": {"workerCount": 0}}, "asyncJobCreator.workerCount: Input should be greater than or equal to 1 (is 0; variable BUILDER_ASYNC_JOB_CREATOR__WORKER_COUNT)"),
        ({"asyncJobCreator": {"retryDelay": 100}}, "asyncJobCreator.retryDelay: a duration with its unit is wanted, such as 100ms, 30s, 5m or 1h (is 100; variable BUILDER_ASYNC_JOB_CREATOR__RETRY_DELAY)"),
        ({"asyncJobCreator": {"retryDelay": "1m"}}, "asyncJobCreator: maxRetryDelay must not be less than retryDelay"),
        ({"cluster": "mem"}, "cluster: Input should be 'kubernetes' or 'memory' (is 'mem'; variable BUILDER_CLUSTER)"),
        ({"build": {"defaultTimeout": "3h"}}, "build: defaultTimeout must be between 1s and maxTimeout"),
        ({"kubernetes": {"namespace": "Bad_Name"}}, "kubernetes.namespace: String should match pattern"),
        ({"admin": {"token": "hunter2"}}, "admin.token: must have 16 characters or more, such as those of `openssl rand -hex 16`; or leave it out (variable BUILDER_ADMIN__TOKEN)"),
        ({"admin": {"token": ""}}, "admin.token: must have 16 characters or more"),
        ({"asyncJobCreator": [1]}, "asyncJobCreator: Input should be"),
    ],
)  # fmt: skip
def test_mistakes_name_their_key(tree: dict[str, object], message: str) -> None:
    """A misspelt key, a wrong type, an impossible combination: the start stops and says what is allowed."""
    with pytest.raises(SettingsError) as mistake:
        validate(MEMORY | tree)
    assert str(mistake.value).startswith(message)


def test_all_mistakes_at_once() -> None:
    """Nobody should have to start five times to find five mistakes."""
    with pytest.raises(SettingsError) as mistake:
        load({"BUILDER_CLUSTER": "no", "BUILDER_SERVER__PORT": "x", "BUILDER_INTAKE__ALLOWED_SOURCE_HOSTS": "a,b"})
    fields = {problem.field for problem in mistake.value.problems}
    assert fields == {"cluster", "server.port", "intake.allowedSourceHosts"}


def test_the_links_of_a_service_named_builder() -> None:
    """Kubernetes puts them into the environment; they are nobody's mistake."""
    links = {
        "BUILDER_SERVICE_HOST": "10.0.0.1",
        "BUILDER_SERVICE_PORT": "80",
        "BUILDER_SERVICE_PORT_HTTP": "80",
        "BUILDER_PORT": "tcp://10.0.0.1:80",
        "BUILDER_PORT_80_TCP_ADDR": "10.0.0.1",
    }
    assert load(links, flags=MEMORY) == load({}, flags=MEMORY)


def test_git_credentials_only_for_hosts_that_are_named() -> None:
    """Kaniko shows them to whatever host an event names."""
    tree: dict[str, object] = {"cluster": "memory", "kaniko": {"gitSecret": "pull"}}
    with pytest.raises(SettingsError, match=r"kaniko\.gitSecret needs intake\.allowedSourceHosts"):
        validate(tree)
    assert validate(tree | {"intake": {"allowedSourceHosts": ["git.example.com"]}}).kaniko.git_secret == "pull"


def test_an_unknown_variable() -> None:
    """A misspelt variable would silently do nothing."""
    with pytest.raises(SettingsError, match=r"BUILDER_CLUSTR: no such setting; did you mean BUILDER_CLUSTER\?"):
        load({"BUILDER_CLUSTR": "memory"})


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"\xff", "cannot read"), (b"a: [", "is no YAML"), (b"- a", "must hold keys and values, not a list")],
)
def test_an_unreadable_file(tmp_path: Path, content: bytes, message: str) -> None:
    """The file is named, and what is wrong with it."""
    file = tmp_path / "settings.yaml"
    file.write_bytes(content)
    with pytest.raises(SettingsError, match=message) as mistake:
        load({}, str(file))
    assert str(file) in str(mistake.value)


def test_a_missing_and_an_empty_file(tmp_path: Path) -> None:
    """A file that is not there is a mistake; an empty one says nothing."""
    with pytest.raises(SettingsError, match=r"--config: cannot read .*missing\.yaml"):
        load({}, str(tmp_path / "missing.yaml"))
    (tmp_path / "empty.yaml").touch()
    assert load({}, str(tmp_path / "empty.yaml"), MEMORY).cluster == "memory"


def test_rabbitmq_as_004_has_it() -> None:
    """Its YAML is taken word for word; a time to live may have a unit as well."""
    section = yaml.safe_load("""
    clusterName: "rabbitmq-cluster"
    namespace: "rabbitmq-dev"
    connectionSecretName: "rabbitmq-connection"
    queues:
      kanikoJobs:
        name: "kaniko-jobs"
        durable: true
        autoDelete: false
        messageTtl: 86400000
        maxLength: 10000
        overflow: "drop-head"
    """)
    settings = validate(MEMORY | {"rabbitmq": section})
    assert settings.rabbitmq.queues.kaniko_jobs == validate(MEMORY).rabbitmq.queues.kaniko_jobs
    variable = "BUILDER_RABBITMQ__QUEUES__KANIKO_JOBS__"
    variables = {f"{variable}MESSAGE_TTL": "24h", f"{variable}MAX_LENGTH": "10000", "BUILDER_CLUSTER": "memory"}
    assert load(variables).rabbitmq == Rabbitmq()


@pytest.mark.parametrize(
    ("url", "urls"),
    [
        ("amqp://a:b@one:5672/v", ("amqp://a:b@one:5672/v",)),
        ("amqps://one, amqps://two:5671", ("amqps://one", "amqps://two:5671")),
    ],
)
def test_several_brokers(url: str, urls: tuple[str, ...]) -> None:
    assert validate(MEMORY | {"rabbitmq": {"url": url}}).rabbitmq.urls == urls


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"url": "http://u:s3cret@host"}, r"rabbitmq\.url: amqp://user:password@host:port/vhost is wanted"),
        ({"url": "amqp://u:s3cret@host:x"}, r"rabbitmq\.url: amqp://user:password@host:port/vhost is wanted"),
        ({"url": 5}, r"rabbitmq\.url: .*\(variable BUILDER_RABBITMQ__URL\)"),
        ({"managementUrl": "u:s3cret@host"}, r"rabbitmq\.managementUrl: http://user:password@host:15672 is wanted"),
        ({"tls": {"keyFile": "k"}}, r"rabbitmq\.tls: keyFile needs certFile"),
        ({"queues": {"kanikoJobs": {"durable": False}}}, r"kanikoJobs: a quorum queue is always durable"),
        ({"queues": {"kanikoJobs": {"messageTtl": "1 day"}}}, r"messageTtl: milliseconds are wanted"),
        (
            {"queues": {"kanikoJobs": {"overflow": "reject-publish-dlx"}}},
            r"overflow: .*'drop-head' or 'reject-publish'",
        ),
    ],
)
def test_wrong_rabbitmq_settings(section: dict[str, object], message: str) -> None:
    """Named with the key and what is allowed, and never with a password in it."""
    with pytest.raises(SettingsError, match=message) as caught:
        validate(MEMORY | {"rabbitmq": section})
    assert "s3cret" not in str(caught.value)


def test_what_senders_may_count_on() -> None:
    """Each mode of custody, with a broker and without; a mode that needs one says so."""
    url = {"url": "amqp://rabbitmq"}
    kept = "RabbitMQ keeps a message until its Job exists, or its dead letter"
    assert building.settings().promise == "202 means that the event is on disk"
    assert building.settings(rabbitmq=url).promise == f"202 means that the event is on disk; {kept}"
    assert building.settings(custody="broker", rabbitmq=url).promise == f"events over HTTP get a 503; {kept}"
    with pytest.raises(SettingsError, match=r"custody: broker needs rabbitmq\.url"):
        building.settings(custody="broker")
