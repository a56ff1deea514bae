"""A broker's side of the promise, and the account that is kept of it."""

import asyncio
from collections import Counter

import httpx

from tests.contract.harness import eventually
from tests.integration.messages import Document, binary
from tests.integration.service import PATIENCE, Service
from tests.integration.witness import Witness

_NOT_NOW = {httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE}


class Sender:
    """Believes a 202 and forgets the event, as brokers do; whatever was not answered it sends again."""

    def __init__(self) -> None:
        self.accepted: dict[str, Document] = {}
        self.rejected: dict[str, Document] = {}
        self.owed: dict[str, Document] = {}

    async def deliver(self, service: Service, *documents: Document) -> None:
        """Send events, all at once; returns when each is answered or has failed."""
        self.owed |= {document["id"]: document for document in documents}
        await asyncio.gather(*(self._deliver(service, document) for document in documents))

    async def redeliver(self, service: Service, within: float = PATIENCE) -> None:
        """Send again what is owed, until it is answered."""

        async def again() -> dict[str, Document]:
            await self.deliver(service, *self.owed.values())
            return self.owed

        await eventually(again, lambda owed: not owed, within)

    async def redeliver_all_but(self, service: Service, *hopeless: str) -> None:
        """Send again what is owed, until only those are left that can never end well."""

        async def again() -> set[str]:
            await self.deliver(service, *self.owed.values())
            return self.owed.keys() - set(hopeless)

        await eventually(again, lambda owed: not owed, within=60.0)

    async def _deliver(self, service: Service, document: Document) -> None:
        headers, body = binary(document)
        try:
            answer = await service.http.post("/", headers=headers, content=body)
        except httpx.TransportError:
            return
        if answer.status_code == httpx.codes.ACCEPTED:
            self.accepted[document["id"]] = document
            self.owed.pop(document["id"], None)
        elif answer.status_code == httpx.codes.BAD_REQUEST:
            self.rejected[document["id"]] = document
            self.owed.pop(document["id"], None)
        else:
            assert answer.status_code in _NOT_NOW, answer.text


async def all_settled(service: Service, within: float = 60.0) -> None:
    """Return when the service has nothing more to do, nor anything to bring back."""

    async def left() -> Document:
        ready = await service.http.get("/health/ready")  # first: not ready means that there may be more to come
        stats = await service.stats()
        waiting = sum(stats["waiting"].values())
        return {"ready": ready.json(), "items": stats["queue_size"] + stats["active_workers"] + waiting}

    await eventually(left, lambda left: left == {"ready": {"status": "ready"}, "items": 0}, within)


async def account(sender: Sender, service: Service, witness: Witness) -> Counter[str]:
    """How many of the accepted events have come to each end, once it is sure that none was lost and none doubled."""
    await all_settled(service)
    results: dict[str, Document] = {name: await service.result(name) for name in sender.accepted}
    made = await witness.made()
    letters = Counter(letter["event"]["id"] for letter in await dead_letters(service))
    failed = {name for name, result in results.items() if result["status"] == "failed"}
    built = {name for name, result in results.items() if result["status"] in {"created", "adopted"}}
    superseded = {name for name, result in results.items() if result["status"] == "superseded"}

    assert sender.owed == {}
    assert {name: results[name]["status"] for name in sender.accepted.keys() - failed - built - superseded} == {}
    assert {name: count for name, count in made.items() if count > 1} == {}, "built more than once"
    assert built - made.keys() == set(), "said to be built, but without a Job"
    # A crash can come between an event's Job and its settled row, and a newer event can take the name before the restart.
    assert made.keys() - built <= superseded, "a Job that nobody was told of"
    assert letters == Counter([*failed, *sender.rejected]), (
        "each failed and each rejected event has its one dead letter"
    )
    return Counter(result["status"] for result in results.values())


async def dead_letters(service: Service) -> list[Document]:
    """All of them."""
    path = "/async-jobs/dead-letters"
    page = await service.get(path)
    letters: list[Document] = page["items"]
    while (before := page["next_before"]) is not None:
        page = await service.get(f"{path}?before={before}")
        letters += page["items"]
    return letters
