"""``topology check`` and ``declare`` on a real broker: over AMQP alone, and with its management API."""

import json
from typing import Any

import pytest

from tests.broker_parts import Vhost
from tests.contract.harness import eventually
from tests.integration import shell

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]  # a busy machine takes its time

ARGUMENTS = {
    "kaniko-jobs": {
        "x-queue-type": "quorum",
        "x-message-ttl": 86_400_000,
        "x-max-length": 10_000,
        "x-overflow": "drop-head",
        "x-dead-letter-exchange": "dlx",
        "x-delivery-limit": 20,
    },
    "kaniko-jobs.dlq": {
        "x-queue-type": "quorum",
        "x-max-length": 100_000,
        "x-overflow": "reject-publish",
        "x-delivery-limit": 1_000_000_000,
    },
}


async def topology(vhost: Vhost, part: str, *, blind: bool = False, **more: str) -> tuple[int, dict[str, Any]]:
    """The exit code and the document; ``blind`` is without the management API."""
    environ = vhost.environ | {f"BUILDER_RABBITMQ__{name}": value for name, value in more.items()}
    if blind:
        del environ["BUILDER_RABBITMQ__MANAGEMENT_URL"]
    done = await shell.command("topology", part, "-o", "json", environ=environ)
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def problems(document: dict[str, Any]) -> list[str]:
    return [f"{one['what']}: {one['problem']}" for one in document["differences"]]


@pytest.mark.parametrize("blind", [True, False], ids=["amqp", "management"])
async def test_from_nothing(vhost: Vhost, *, blind: bool) -> None:
    """Check says what is missing and makes nothing; declare makes it, once; then all is well."""
    code, document = await topology(vhost, "check", blind=blind)
    assert (code, len(document["differences"])) == (1, 4)
    assert vhost.manage("GET", "queues") == []
    code, document = await topology(vhost, "declare", blind=blind)
    assert (code, document["differences"], document["made"][:2]) == (0, [], ["exchange cloud-events", "exchange dlx"])
    for name, arguments in ARGUMENTS.items():
        assert vhost.manage("GET", "queues", name)["arguments"] == arguments
    code, document = await topology(vhost, "declare", blind=blind)
    assert (code, document["made"], document["differences"]) == (0, [], [])
    code, document = await topology(vhost, "check", blind=blind)
    assert (code, document["ok"]) == (0, True)
    assert len(document["unseen"]) == (2 if blind else 0)


@pytest.mark.parametrize("blind", [True, False], ids=["amqp", "management"])
async def test_arguments_that_cannot_be_changed(vhost: Vhost, *, blind: bool) -> None:
    """Every difference of a queue at once, by either road; declare leaves the queue and what is in it alone."""
    theirs = {"x-queue-type": "quorum", "x-max-length": 5, "x-expires": 60_000_000}
    vhost.manage("PUT", "queues", "kaniko-jobs", {"durable": True, "arguments": theirs})
    for part in ("check", "declare"):
        code, document = await topology(vhost, part, blind=blind)
        assert code == 1
        assert {one for one in problems(document) if one.startswith("queue kaniko-jobs:")} == {
            "queue kaniko-jobs: x-dead-letter-exchange is not set, wanted is dlx",
            "queue kaniko-jobs: x-message-ttl is not set, wanted is 86400000",
            "queue kaniko-jobs: x-max-length is 5, wanted is 10000",
            "queue kaniko-jobs: x-delivery-limit is not set, wanted is 20",
            "queue kaniko-jobs: x-expires is 60000000, wanted is not set",
        }
    assert vhost.manage("GET", "queues", "kaniko-jobs")["arguments"] == theirs


async def test_the_policy_that_is_the_way_out(vhost: Vhost) -> None:
    """What check says to do makes check content."""
    fewer = {name: value for name, value in ARGUMENTS["kaniko-jobs"].items() if name != "x-dead-letter-exchange"}
    vhost.manage("PUT", "queues", "kaniko-jobs", {"durable": True, "arguments": fewer})
    code, document = await topology(vhost, "declare")
    assert (code, problems(document)) == (1, ["queue kaniko-jobs: x-dead-letter-exchange is not set, wanted is dlx"])
    assert "rabbitmqctl set_policy --apply-to queues NAME '^kaniko-jobs$'" in document["differences"][0]["way_out"]
    policy = {"pattern": "^kaniko-jobs$", "definition": {"dead-letter-exchange": "dlx"}, "apply-to": "queues"}
    vhost.manage("PUT", "policies", "dead-letters", policy)
    # The management API shows it within five seconds.
    content = (0, {"ok": True, "made": [], "differences": [], "unseen": []})
    assert await eventually(lambda: topology(vhost, "check"), lambda said: said == content) == content


async def test_classic_and_of_the_wrong_type(vhost: Vhost) -> None:
    """The worst case over AMQP alone: nothing of it is as wanted, and it is read all the same."""
    vhost.manage("PUT", "queues", "kaniko-jobs", {"durable": False})
    vhost.manage("PUT", "exchanges", "cloud-events", {"type": "fanout", "durable": True})
    code, document = await topology(vhost, "check", blind=True)
    assert code == 1
    assert {
        "exchange cloud-events: is of type fanout, wanted is topic",
        "queue kaniko-jobs: durable is false, wanted is true",
        "queue kaniko-jobs: x-queue-type is classic, wanted is quorum",
    } <= set(problems(document))


async def test_a_dead_letter_exchange_bound_to_nothing(vhost: Vhost) -> None:
    """The management API sees it, and it comes first."""
    await topology(vhost, "declare")
    vhost.manage("DELETE", "queues", "kaniko-jobs.dlq")
    vhost.manage("PUT", "queues", "kaniko-jobs.dlq", {"durable": True, "arguments": ARGUMENTS["kaniko-jobs.dlq"]})
    code, document = await topology(vhost, "check")
    assert (code, problems(document)) == (1, ["binding dlx → kaniko-jobs.dlq: is missing"])
    assert document["differences"][0]["loses"] == (
        "what expires, overflows or is rejected: the broker drops it silently"
    )


async def test_safer_settings_are_taken_too(vhost: Vhost) -> None:
    """``reject-publish`` with at-least-once dead-lettering, as the README advises."""
    more = {"QUEUES__KANIKO_JOBS__OVERFLOW": "reject-publish", "QUEUES__KANIKO_JOBS__MAX_LENGTH": "500"}
    assert (await topology(vhost, "declare", blind=False, **more))[0] == 0
    assert vhost.manage("GET", "queues", "kaniko-jobs")["arguments"]["x-dead-letter-strategy"] == "at-least-once"
    assert (await topology(vhost, "check", blind=True, **more))[0] == 0


async def test_an_account_that_may_not(vhost: Vhost) -> None:
    """The management API's refusal is said, and AMQP has the rest."""
    await topology(vhost, "declare")
    code, document = await topology(
        vhost, "check", MANAGEMENT_URL=vhost.broker.management_url.replace("guest:guest", "guest:s3cret")
    )
    assert (code, document["ok"]) == (0, True)
    assert "refuses the user" in document["unseen"][0]
    assert "s3cret" not in json.dumps(document)


async def test_no_management_api(vhost: Vhost) -> None:
    """An address that answers 404 to everything must not make everything seem to be missing."""
    await topology(vhost, "declare")
    code, document = await topology(vhost, "check", MANAGEMENT_URL=vhost.broker.management_url + "/nowhere")
    assert (code, document["ok"]) == (0, True)
    assert "/nowhere/ is no management API" in document["unseen"][0]


async def test_no_broker(vhost: Vhost) -> None:
    """One line, and the exit code of what did not work."""
    for url, code in (("amqp://guest:s3cret@127.0.0.1:1", 1), (vhost.url.replace("amqp:", "http:"), 2)):
        done = await shell.command("topology", "check", "--amqp", url)
        assert (done.returncode, done.stdout) == (code, "")
        assert "rabbitmq.url" in done.stderr
        assert "s3cret" not in done.stderr


async def test_check_looks_at_the_broker_too(vhost: Vhost) -> None:
    """Where one is set."""
    words = "check", "--cluster=memory"
    done = await shell.command(*words, environ=vhost.environ)
    assert done.returncode == 1
    assert "ok   broker: RabbitMQ answers\nFAIL topology: exchange cloud-events is missing; " in done.stdout
    await topology(vhost, "declare")
    done = await shell.command(*words, environ=vhost.environ)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "ok   topology: as wanted")
