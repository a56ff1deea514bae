"""A history that nobody has written: see ``chaos.py`` for what happens, ``judge.py`` for what must be true of it.

For half an hour, or once more with its seed:

    make chaos MINUTES=30
    KNATIVE_LAMBDA_BUILDER_TEST_SEED=… make chaos
"""

import os
from pathlib import Path

import pytest

from tests.contract.harness import a_job, eventually
from tests.fault_proxy import FaultProxy
from tests.integration.chance import chance
from tests.integration.chaos import Chaos
from tests.integration.clocks import skip_without_clocks
from tests.integration.judge import Judge, judge, no_orphans
from tests.integration.namespace import Namespace
from tests.integration.service import Services

MINUTES = float(os.environ.get("KNATIVE_LAMBDA_BUILDER_TEST_MINUTES", "0.67"))
STRANGER = "kaniko-job-acme-parser0"

pytestmark = [
    pytest.mark.integration,
    # Of the sender here, not of the service: connections to a server that is killed may be left to be collected.
    pytest.mark.filterwarnings("ignore:unclosed transport:ResourceWarning"),
    pytest.mark.timeout(MINUTES * 60 + 600),
]


@pytest.mark.parametrize("faults", [False, True], ids=["three replicas, killed and updated", "and faults and clocks"])
async def test_every_promise_is_kept(
    namespace_apart: Namespace, services: Services, tmp_path: Path, capsys: pytest.CaptureFixture[str], *, faults: bool
) -> None:
    """Nothing lost, nothing doubled, nobody else's touched, one build of a target at a time and the newest last."""
    if faults:
        skip_without_clocks()
    with capsys.disabled():  # for the record, whatever comes of it
        random = chance()
    await namespace_apart.create(a_job(STRANGER, spec={"suspend": True}))
    await eventually(namespace_apart.jobs, lambda jobs: jobs[STRANGER]["status"].get("conditions"))
    async with Judge.open(namespace_apart) as witness, FaultProxy.open(namespace_apart.plane) as proxy:
        before = await witness.version_of(STRANGER)
        chaos = Chaos(random, witness, proxy, services, tmp_path, faults=faults)
        await chaos.run(MINUTES * 60 * (1 if faults else 0.5))
        accounts = await chaos.end()
        await witness.made()
        await no_orphans(witness)
        after = await witness.version_of(STRANGER)

    verdict = judge(accounts, witness.jobs_in_order())
    with capsys.disabled():
        print(f"\n{dict(chaos.happened)}\n{verdict}")  # noqa: T201 -- for the record
    assert witness.side_by_side == []
    assert after == before
    assert verdict.outcomes.total() == verdict.accepted > 0
    assert verdict.outcomes["created"] > 0
