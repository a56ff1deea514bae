"""What we may not do is known before the first event fails of it."""

import asyncio
from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from builder.errors import Transient
from builder.flow.permissions import LOOK_AGAIN, LOOK_EVERY, Permissions

CREATE = ["create jobs.batch in namespace builds"]


class ScriptedRights:
    """Says at each look what comes next in its script; the last again and again."""

    def __init__(self, *script: Sequence[str] | Transient) -> None:
        self.script = list(script)
        self.looks: list[float] = []

    async def missing_permissions(self) -> Sequence[str]:
        self.looks.append(asyncio.get_running_loop().time())
        answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(answer, Transient):
            raise answer
        return answer


async def test_an_api_server_that_does_not_answer_says_nothing() -> None:
    """Then what was known stays."""
    permissions = Permissions(ScriptedRights(CREATE, Transient("reset"), []))
    known = []
    for _ in range(3):
        await permissions.look()
        known.append(permissions.missing)
    assert known == [CREATE, CREATE, []]


async def test_one_line_when_it_goes_and_one_when_it_is_back() -> None:
    """Not one for each look."""
    permissions = Permissions(ScriptedRights([], CREATE, CREATE, [], []))
    with capture_logs() as lines:
        for _ in range(5):
            await permissions.look()
    assert [line["event"] for line in lines] == ["permissions_missing", "permissions_complete"]
    assert lines[0]["missing"] == CREATE


@pytest.mark.looptime
async def test_looks_are_few_and_sooner_while_something_is_missing() -> None:
    """An admin who mends a Role does not wait a minute for it."""
    rights = ScriptedRights([], CREATE, [], [])
    permissions = Permissions(rights)
    watch = asyncio.create_task(permissions.watch())
    await asyncio.sleep(3 * LOOK_EVERY + LOOK_AGAIN + 1)
    watch.cancel()
    assert rights.looks == [LOOK_EVERY, 2 * LOOK_EVERY, 2 * LOOK_EVERY + LOOK_AGAIN, 3 * LOOK_EVERY + LOOK_AGAIN]


async def test_nobody_to_ask() -> None:
    """A cluster without permissions has none that are missing."""
    permissions = Permissions(None)
    await permissions.look()
    assert permissions.missing == ()
