"""Events that come to every end there is, for those who crash the service on their way."""

from datetime import UTC, datetime, timedelta

from builder.events.request import build_request
from builder.jobs.manifest import build_job
from builder.models import Manifest
from builder.settings_sources import validate
from tests.building import event
from tests.contract.harness import a_job
from tests.integration.messages import Document, build_of
from tests.integration.namespace import Namespace
from tests.integration.service import settings_tree
from tests.integration.witness import Witness

YEAR = timedelta(days=365)
NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)


def job_of(parser_id: str, at: datetime) -> Manifest:
    """The Job that an earlier event left behind."""
    settings = validate(settings_tree({}))
    earlier = event(f"before-{parser_id}", target=("acme", parser_id), time=at)
    return build_job(build_request(earlier, NOON, settings.build, settings.intake), settings)


def every_way() -> list[Document]:
    """Events that come to every end there is, by every way: see ``surroundings``."""
    free = [build_of(f"free{number}") for number in range(3)]
    invalid = build_of("invalid", runtime="cobol")
    return [*free, build_of("finished"), build_of("busy"), build_of("newer"), build_of("taken"), invalid]


async def surroundings(namespace: Namespace) -> None:
    """What stands under the names that those events want: a finished build, an active one, a newer one, a stranger."""
    async with Witness.open(namespace) as kubelet:
        jobs = [job_of("finished", NOON - YEAR), job_of("busy", NOON - YEAR), job_of("newer", NOON + YEAR)]
        await namespace.create(*jobs, a_job("kaniko-job-acme-taken"))
        await kubelet.end_builds(["kaniko-job-acme-finished"])


def wish(number: int) -> Document:
    """One of many events for a few targets, each requested a second after the one before it."""
    document = build_of(f"parser{number % 5}", event_id=f"e-{number}")
    return document | {"time": (NOON + timedelta(seconds=number)).isoformat()}
