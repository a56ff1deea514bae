"""Who watches a crowd of replicas from outside, and says in the end whether all promises were kept."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import httpx

from builder.jobs import labels
from builder.models import Manifest
from tests.contract.harness import eventually
from tests.integration.messages import Document
from tests.integration.namespace import Namespace
from tests.integration.witness import See, Witness

_OVER = {"Succeeded", "Failed"}


class Judge(Witness):
    """Sees every Job and every Pod from its first moment to its last, in the order of the API server."""

    def __init__(self, namespace: Namespace, http: httpx.AsyncClient) -> None:
        super().__init__(namespace, http)
        self.side_by_side: list[str] = []
        """What was never to happen: Pods that ran while another of their target did."""
        self._running: defaultdict[str, set[str]] = defaultdict(set)

    def jobs_in_order(self) -> list[Manifest]:
        """Every Job that was made, the first first; marks and strangers' too."""
        return list(self._made.values())

    async def version_of(self, name: str) -> tuple[str, str]:
        """What tells whether anybody has touched a Job."""
        metadata = (await self._get(f"{self._jobs}/{name}"))["metadata"]
        return metadata["uid"], metadata["resourceVersion"]

    async def orphans(self) -> list[str]:
        """Pods that belong to no Job."""
        jobs = {job["metadata"]["uid"] for job in (await self._get(self._jobs))["items"]}
        pods = (await self._get(self._pods))["items"]
        return [pod["metadata"]["name"] for pod in pods if pod["metadata"]["ownerReferences"][0]["uid"] not in jobs]

    def _sights(self) -> list[tuple[str, See]]:
        return [*super()._sights(), (self._pods, self._see_pod)]

    def _see_pod(self, kind: str, pod: Manifest) -> None:
        metadata = pod["metadata"]
        target = "/".join(metadata["labels"].get(key, "") for key in (labels.THIRD_PARTY_ID, labels.PARSER_ID))
        running = self._running[target]
        if kind == "DELETED" or pod["status"].get("phase") in _OVER:
            running.discard(metadata["uid"])
        else:
            running.add(metadata["uid"])
            if len(running) > 1:
                self.side_by_side.append(f"{metadata['name']} of {target}")


@dataclass
class Account:
    """What one replica says became of what it accepted."""

    accepted: Mapping[str, Document]
    rejected: Collection[str]
    results: Mapping[str, Document]
    letters: Counter[str]

    def ended_as(self, *outcomes: str) -> set[str]:
        """The events that did."""
        return {name for name, result in self.results.items() if result["status"] in outcomes}

    def check(self) -> None:
        """Every accepted event has one end, and each that failed or was rejected its one letter."""
        ends = {"created", "adopted", "superseded", "failed"}
        assert {name: self.results[name] for name in self.accepted if self.results[name]["status"] not in ends} == {}
        letters = Counter([*self.ended_as("failed"), *self.rejected])
        missing, too_many = letters - self.letters, self.letters - letters
        told = {name: self.results.get(name) for name in too_many}
        assert (missing, too_many) == (Counter(), Counter()), f"letters that are missing: {missing}, too many: {told}"


@dataclass
class Verdict:
    """What came of it all, in numbers; what may happen, but seldom, is counted too."""

    accepted: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    jobs: int = 0
    built_again: int = 0
    """Events whose Job a later request had deleted when another replica was sent them once more."""
    overtaken: int = 0
    """Targets that share a name with another and whose newest request was not built last, for the same reason."""
    built_and_failed: int = 0
    """Events whose Job was made, which nobody could be told: the answers got lost until no retry was left."""


def judge(accounts: Iterable[Account], jobs: Iterable[Manifest]) -> Verdict:
    """Hold what the replicas say against the Jobs that were made."""
    verdict = Verdict()
    events: dict[str, Document] = {}
    ends: defaultdict[str, set[str]] = defaultdict(set)
    for account in accounts:
        account.check()
        events |= account.accepted
        verdict.accepted += len(account.accepted)
        for name, result in account.results.items():
            ends[name].add(result["status"])
            verdict.outcomes[result["status"]] += 1
            if result["status"] == "failed":
                verdict.reasons[result["reason"]] += 1
    made = [job for job in jobs if labels.EVENT_ID in labels.annotations(job)]
    count = Counter(_event(job) for job in made)
    verdict.jobs = len(made)

    built = {name for name, how in ends.items() if how & {"created", "adopted"}}
    assert count.keys() <= events.keys(), "a Job of an event that nobody accepted"
    assert built <= count.keys(), "said to be built, but without a Job"
    untold = count.keys() - built
    verdict.built_and_failed = len([name for name in untold if "failed" in ends[name]])
    assert [name for name in untold if not ends[name] & {"superseded", "failed"}] == []
    targets: defaultdict[tuple[str, str], list[Manifest]] = defaultdict(list)
    for job in made:
        targets[_target(job)].append(job)
    for builds in targets.values():
        again, overtaken = _check_order(builds, events, ends)
        verdict.built_again += again
        verdict.overtaken += overtaken
    return verdict


def _check_order(
    builds: list[Manifest], events: Mapping[str, Document], ends: Mapping[str, set[str]]
) -> tuple[int, bool]:
    """The newest request of a target is built last, and none is built twice: how many were, but for the one reason.

    Which is that the name was free, for a later request had deleted the Job there and not yet made its own.
    """
    target, name = _target(builds[0]), builds[0]["metadata"]["name"]
    rivals = {one: event["time"] for one, event in events.items() if _wanted(event) == target}
    shared = any(event["data"].get("job_name") == name and _wanted(event) != target for event in events.values())
    last = _event(builds[-1])
    newer = {one for one, time in rivals.items() if time > rivals[last]}
    # A request that gave way to a newer one does not come back when that one fails.
    lost = [rivals[one] for one in newer if "failed" in ends[one]]
    overtaken = {one for one in newer if rivals[one] > max(lost, default="")}
    assert shared or overtaken == set(), f"{name}: {last} was built last"
    twice = [one for one, times in Counter(map(_event, builds)).items() if times > 1]
    for one in twice:
        assert shared or max(rivals.values()) > rivals[one], f"{one} was built twice"
    return len(twice), overtaken != set()


def _target(job: Manifest) -> tuple[str, str]:
    annotations = labels.annotations(job)
    return annotations[labels.THIRD_PARTY_ID], annotations[labels.PARSER_ID]


def _wanted(event: Document) -> tuple[str, str]:
    return event["data"]["third_party_id"], event["data"]["parser_id"]


def _event(job: Manifest) -> str:
    return labels.annotations(job)[labels.EVENT_ID]


async def no_orphans(witness: Judge) -> None:
    """Return when every Pod belongs to a Job: the garbage collector may need a moment."""
    await eventually(witness.orphans, lambda orphans: not orphans)
