"""From an event to an image that runs: BuildKit for real, by HTTP and by AMQP."""

import asyncio
import json
import re
from pathlib import Path

import pytest
from node import stock
from node.installation import REPOSITORY
from node.node import Node
from node.places import REGISTRY_NAME

from tests.amqp_parts import Queue
from tests.broker_parts import Vhost
from tests.contract.harness import eventually
from tests.e2e.installation import Installation, Installations
from tests.e2e.sources import EXAMPLES, Sources

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

HELLO = EXAMPLES / "hello"


@pytest.fixture
def sources(node: Node, tmp_path: Path) -> Sources:
    """A repository that everybody may read."""
    return Sources(node, tmp_path)


async def test_over_http_to_an_image_that_answers(buildkit: Installation, sources: Sources) -> None:
    """A repository's root: environment and runtime were seen by the build, as they were written."""
    sources.commit(HELLO)
    greeting = "good $(HOME) day, $$you"
    wish = sources.event("root", runtime="nodejs18", build_type="container", environment={"GREETING": greeting})
    build = await buildkit.built(wish)
    assert build.image.startswith(f"{REGISTRY_NAME}/{REPOSITORY}:")
    assert await buildkit.answer_of(build.image) == {"greeting": greeting, "runtime": "nodejs18"}
    result = await buildkit.service.result("root")
    assert (result["status"], result["image"]) == ("created", build.image)


async def test_over_amqp_to_an_image(installations: Installations, sources: Sources, vhost: Vhost) -> None:
    """The message is acked when its Job exists, and the Job builds."""
    sources.commit(HELLO)
    async with Queue.declared(vhost) as queue:
        installed = await installations.make("buildkit", environ=vhost.environ)
        await queue.publish(sources.event("queue"))
        build = await installed.ended("queue")
        await eventually(queue.count, lambda count: count == 0)
    installed.check_success(build)


async def test_a_folder_a_branch_and_a_commit(buildkit: Installation, sources: Sources) -> None:
    """Of one repository in which each of them has something else to say; side by side, as they are different targets."""
    first = sources.commit(EXAMPLES, **{"hello/Dockerfile": dockerfile("the first commit")})
    sources.commit(EXAMPLES, **{"hello/Dockerfile": dockerfile("the last commit")})
    sources.commit(EXAMPLES, branch="v2", **{"hello/Dockerfile": dockerfile("the branch")})
    events = {
        "the last commit": sources.event("folder", source_url=f"{sources.url}/hello"),
        "the branch": sources.event("branch", ref="v2", sub_path="hello"),
        "the first commit": sources.event("commit", ref=first, sub_path="hello"),
    }
    builds = await asyncio.gather(*map(buildkit.built, events.values()))
    answers = await asyncio.gather(*(buildkit.answer_of(build.image) for build in builds))
    assert [answer["greeting"] for answer in answers] == list(events)


async def test_a_function_on_a_private_base(installations: Installations, node: Node, tmp_path: Path) -> None:
    """No Dockerfile in the source, which is private, as the base image is: both accounts come from Secrets."""
    node.registry.push(stock.python(), "base/python", "3.11")
    runtime = {"python3.11": {"language": "python", "base_image": f"{REGISTRY_NAME}/base/python:3.11"}}
    installed = await installations.make("buildkit", settings={"BUILDER_BUILD__RUNTIMES": json.dumps(runtime)})
    sources = Sources(node, tmp_path, private=True)
    sources.commit(EXAMPLES / "function")
    build = await installed.built(sources.event("function", runtime="python3.11"))
    assert await installed.answer_of(build.image, "/orders/42") == {"path": "/orders/42"}


async def test_the_second_build_uses_the_first_ones_layers(buildkit: Installation, sources: Sources) -> None:
    """Another Pod, another daemon: the step that takes three seconds is not taken again, and its result is the same."""
    word = "$(sleep 3; cat /proc/sys/kernel/random/uuid)"
    sources.commit(HELLO, Dockerfile=dockerfile(word))
    first = await buildkit.built(sources.event("cached", "e-1"))
    sources.commit(HELLO, Dockerfile=dockerfile(word), unrelated="file")
    second = await buildkit.built(sources.event("cached", "e-2"))
    assert seconds_of_the_step(first.log) >= 3
    assert seconds_of_the_step(second.log) == 0
    assert await buildkit.answer_of(second.image) == await buildkit.answer_of(first.image)


def seconds_of_the_step(log: str) -> float:
    """How long the Dockerfile's RUN took, as BuildKit says; 0 if its result was in the cache."""
    step = re.search(r"^(#\d+) \[\d/\d\] RUN", log, re.MULTILINE)
    assert step is not None, log
    ended = re.search(rf"^{step[1]} (?:CACHED|DONE ([0-9.]+)s)$", log, re.MULTILINE)
    assert ended is not None, log
    return float(ended[1] or 0)


def dockerfile(greeting: str) -> str:
    """The example's, with a word of its own."""
    return f"""
FROM docker.io/library/busybox:1
COPY index.html /www/
RUN printf '{{"greeting": "%s"}}\\n' "{greeting}" > /www/build.json
USER 65534:65534
CMD ["httpd", "-f", "-p", "8080", "-h", "/www"]
"""
