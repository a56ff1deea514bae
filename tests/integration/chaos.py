"""Three replicas, one API server, and everything that can happen to them, by chance."""

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

from builder.failpoints import FAILPOINTS
from tests.fault_proxy import (
    HALF,
    HANG,
    NO_JSON,
    RESET,
    Fault,
    FaultProxy,
    after_the_commit,
    answer,
    refusal,
)
from tests.integration.clocks import Clock
from tests.integration.judge import Account, Judge
from tests.integration.messages import Document, build_of
from tests.integration.sender import Sender, all_settled, dead_letters
from tests.integration.service import Service, Services

NOON = datetime(2024, 1, 1, 12, tzinfo=UTC)
REPLICAS = 3
WALKERS = 3
"""So many things happen at the same time."""

AT_ONCE = 4
"""So many faults lie in wait, at the most: most requests must succeed, or the history is one of a full queue."""

BACKLOG = 30
"""With so many events unanswered, a sender sends nothing new."""

Step: TypeAlias = Callable[[], Coroutine[Any, Any, None]]
TARGETS = [
    *(("acme", f"parser{number}", None) for number in range(4)),
    *(("globex", f"parser{number}", None) for number in range(3)),
    ("acme", "one", "nightly"),
    ("acme", "other", "nightly"),
    ("acme", "shared", "shared"),
    ("globex", "shared", "shared"),
]
"""Third party, parser, and the ``job_name`` that its events ask for. A stranger's Job has the first one's name."""

FAULTS: list[tuple[str, Fault]] = [
    ("POST", answer(429, "Too many requests, please try again later.\n", Retry_After="1")),
    ("POST", refusal(500, "InternalError", "etcdserver: leader changed")),
    ("POST", after_the_commit(refusal(504, "Timeout", "Timeout: request did not complete"))),
    ("POST", refusal(403, "Forbidden", "exceeded quota: chaos, requested: count/jobs.batch=1")),
    *((method, answer(503, "no healthy upstream")) for method in ("POST", "GET", "DELETE")),
    *((method, fault) for method in ("POST", "GET", "DELETE") for fault in (RESET, HALF, after_the_commit(RESET))),
    *((method, after_the_commit(HANG)) for method in ("POST", "DELETE")),
    ("GET", NO_JSON),
]

CLOCK_STEPS = ["+0", "+36h", "-20m", "+1h", "-30s"]

POLICY: dict[str, Any] = {
    "asyncJobCreator": {"maxRetryDelay": "300ms", "maxQueueSize": 200, "drainTimeout": "2s"},
    "kubernetes": {"requestTimeout": "3s"},
    "results": {"ttl": "1000h", "maxEntries": 1_000_000},
    "deadLetters": {"maxCount": 1_000_000},
}


@dataclass
class Replica:
    """One place where a service runs, most of the time, on a journal and with a clock of its own."""

    number: int
    folder: Path
    sender: Sender = field(default_factory=Sender)
    service: Service | None = None
    returns: asyncio.Task[None] | None = None
    clock: Clock | None = None

    @property
    def alive(self) -> bool:
        """True while it can be spoken to."""
        return self.service is not None and self.service.alive and bool(self.service.url)


class Chaos:
    """Lets things happen until the time is over, then lets everything come to its end."""

    def __init__(
        self,
        random: random.Random,
        judge: Judge,
        proxy: FaultProxy,
        services: Services,
        folder: Path,
        *,
        faults: bool,
    ) -> None:
        """``faults`` adds what goes wrong between the replicas and the API server, and their clocks."""
        self.happened: Counter[str] = Counter()
        self.replicas = [Replica(number, folder) for number in range(REPLICAS)]
        self._random = random
        self._judge = judge
        self._proxy = proxy
        self._services = services
        self._kubeconfig = judge.namespace.kubeconfig(folder / "by-the-proxy", server=proxy.url)
        self._faults = faults
        self._sent: list[Document] = []

    async def run(self, seconds: float) -> None:
        """So long."""
        steps: dict[Step, int] = {
            self._send: 10,
            self._send_to_all: 4,
            self._send_again: 4,
            self._builds_end: 6,
            self._kill: 1,
            self._update: 1,
        }
        if self._faults:
            steps |= {self._fault: 4, self._outage: 1, self._step_clock: 1}
        await asyncio.gather(*(self._begin(replica) for replica in self.replicas))
        until = asyncio.get_running_loop().time() + seconds
        await asyncio.gather(*(self._walk(steps, until) for _ in range(WALKERS)))

    async def _walk(self, steps: Mapping[Step, int], until: float) -> None:
        while asyncio.get_running_loop().time() < until:
            (step,) = self._random.choices(list(steps), list(steps.values()))
            self.happened[step.__name__.strip("_")] += 1
            await step()
            self._bring_back()
            await asyncio.sleep(self._random.random() * 0.2)  # of the history, which is one of real time

    async def end(self) -> list[Account]:
        """Mend everything, and let every replica do what is left; what each says became of it."""
        self._proxy.mend()
        for replica in self.replicas:
            if replica.returns is not None:
                await replica.returns
            # A new one, that will not die at a failpoint on the way.
            await self._running(replica).close()
            await self._begin(replica, doomed=False)
        async with self._judge.builds_end_at_once():
            for replica in self.replicas:
                await replica.sender.redeliver(self._running(replica), within=600)
            for replica in self.replicas:
                await all_settled(self._running(replica), within=600)
        return [await self._account(replica) for replica in self.replicas]

    async def _account(self, replica: Replica) -> Account:
        service, sender = self._running(replica), replica.sender
        results: dict[str, Document] = {}
        names = list(sender.accepted)
        for start in range(0, len(names), 50):
            some = names[start : start + 50]
            results |= dict(zip(some, await asyncio.gather(*map(service.result, some)), strict=True))
        # One whose event came again, after its identity was forgotten, and ended well has been marked.
        open_ones = [letter for letter in await dead_letters(service) if letter["replayed_at"] is None]
        letters = Counter(letter["event"]["id"] for letter in open_ones)
        return Account(sender.accepted, sender.rejected.keys(), results, letters)

    async def _begin(self, replica: Replica, *, doomed: bool = True) -> None:
        """Start it; one time in three it will die at some failpoint."""
        environ = {"PYTHONFAULTHANDLER": "1"}
        if doomed and self._random.random() < 1 / 3:
            point, count = self._random.choice(FAILPOINTS), self._random.randrange(1, 30)
            environ["KNATIVE_LAMBDA_BUILDER_FAILPOINT"] = f"{point}:{count}"
        if self._faults:
            replica.clock = Clock(replica.folder / f"clock-{replica.number}")
            environ |= replica.clock.environ
        journal = replica.folder / f"journal-{replica.number}.sqlite3"
        namespace = self._judge.namespace
        replica.service = self._services.spawn(
            namespace, kubeconfig=self._kubeconfig, journal=journal, environ=environ, **POLICY
        )
        try:
            await replica.service.listening_or_dead()
        except AssertionError:
            replica.service.signal(signal.SIGABRT)  # so that its log shows where it stands
            await replica.service.exit_code()
            print(replica.service.text())  # noqa: T201 -- shown with the failure
            raise

    def _running(self, replica: Replica) -> Service:
        assert replica.service is not None
        return replica.service

    def _alive(self) -> list[Replica]:
        return [replica for replica in self.replicas if replica.alive]

    async def _deliver(self, replica: Replica, *documents: Document) -> None:
        """As a broker does: what it owes this replica goes with it."""
        owed = list(replica.sender.owed.values())
        new = documents if len(owed) < BACKLOG else ()
        if replica.alive:
            await replica.sender.deliver(self._running(replica), *new, *owed[:5])
        else:
            replica.sender.owed |= {document["id"]: document for document in new}

    async def _send(self) -> None:
        """New events to one replica."""
        await self._deliver(self._random.choice(self.replicas), *self._events())

    async def _send_to_all(self) -> None:
        """The same new events to all, at once."""
        events = self._events()
        await asyncio.gather(*(self._deliver(replica, *events) for replica in self.replicas))

    async def _send_again(self) -> None:
        """A redelivery of something old, to any replica."""
        await self._deliver(
            self._random.choice(self.replicas), *self._random.sample(self._sent, min(3, len(self._sent)))
        )

    async def _builds_end(self) -> None:
        """Some of those that run."""
        await self._judge.end_running(lambda _: self._random.random() < 0.5)

    async def _kill(self) -> None:
        """Between any two instructions."""
        await self._stop(signal.SIGKILL)

    async def _update(self) -> None:
        """A rolling update: drained as far as that goes in time, then the next one."""
        await self._stop(signal.SIGTERM)

    async def _stop(self, number: signal.Signals) -> None:
        if alive := self._alive():
            self._running(self._random.choice(alive)).signal(number)

    def _bring_back(self) -> None:
        """Who is dead, of this or of a failpoint, comes back, while the others go on."""
        for replica in self.replicas:
            if replica.returns is not None and replica.returns.done():
                replica.returns.result()
                replica.returns = None
            if not self._running(replica).alive and replica.returns is None:
                replica.returns = asyncio.create_task(self._return(replica))

    async def _return(self, replica: Replica) -> None:
        await asyncio.sleep(self._random.random() * 3)
        await self._running(replica).close()
        await self._begin(replica)

    async def _fault(self) -> None:
        if self._proxy.laid_down < AT_ONCE:
            method, fault = self._random.choice(FAULTS)
            self._proxy.lay_down(method, fault, self._random.randrange(1, 4))

    async def _outage(self) -> None:
        """Nobody listens for a while; all connections break."""
        self._proxy.refuse()
        await asyncio.sleep(self._random.random() * 3)
        await self._proxy.listen()

    async def _step_clock(self) -> None:
        """The time of day leaps, forward or back; not far back, for a certificate would not be valid yet."""
        if (clock := self._random.choice(self.replicas).clock) is not None:
            clock.set(self._random.choice(CLOCK_STEPS))

    def _events(self) -> list[Document]:
        fresh = [self._event(len(self._sent) + number) for number in range(self._random.randrange(1, 4))]
        self._sent += fresh
        return fresh

    def _event(self, number: int) -> Document:
        """For one of a few targets; some come later than those that were requested after them."""
        third_party, parser, job_name = self._random.choice(TARGETS)
        parameters = {"runtime": "cobol"} if self._random.random() < 0.05 else {}
        document = build_of(parser, event_id=f"e-{number}", **parameters)
        document["data"] |= {"third_party_id": third_party, "priority": self._random.randrange(1, 11)}
        if job_name is not None:
            document["data"]["job_name"] = job_name
        seconds = number + self._random.randrange(5)
        document["time"] = (NOON + timedelta(seconds=seconds, microseconds=number % 10**6)).isoformat()
        return document
