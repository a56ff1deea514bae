"""What tests on a real RabbitMQ share: a vhost of their own, and what is in it."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from aio_pika.abc import AbstractIncomingMessage
from broker import Broker

from builder.adapters.rabbitmq import topology
from builder.adapters.rabbitmq.connection import connected
from builder.rabbitmq_settings import Rabbitmq


@dataclass(frozen=True, slots=True)
class Vhost:
    """A vhost of the session's broker."""

    broker: Broker
    name: str

    @property
    def url(self) -> str:
        return self.broker.url_of(self.name)

    @property
    def environ(self) -> dict[str, str]:
        """For a service or a command that is to use it."""
        return {
            "BUILDER_RABBITMQ__URL": self.url,
            "BUILDER_RABBITMQ__MANAGEMENT_URL": self.broker.management_url,
        }

    def settings(self, **more: Any) -> Rabbitmq:
        """The section ``rabbitmq`` for it; ``more`` are keys in the file's spelling."""
        tree = {"url": self.url, "managementUrl": self.broker.management_url}
        return Rabbitmq.model_validate(tree | more)

    def manage(self, method: str, kind: str, path: str = "", body: object = None) -> Any:
        """The management API: ``manage("GET", "queues")``, ``manage("GET", "queues", "kaniko-jobs")``."""
        place = "/".join(quote(part, safe="") for part in (kind, self.name, *filter(None, [path])))
        return self.broker.manage(method, f"/api/{place}", body)

    async def declare(self, **more: Any) -> Rabbitmq:
        """The topology of its settings, made; gives these."""
        settings = self.settings(**more)
        async with connected(settings) as connection:
            await topology.declare(settings, connection)
        return settings

    def count(self, queue: str = "kaniko-jobs") -> int:
        """How many messages are ready in a queue. The broker's word may be seconds old: wait for it with ``eventually``."""
        return int(self.manage("GET", "queues", queue).get("messages_ready", 0))

    def purge(self, queue: str = "kaniko-jobs") -> None:
        """Empty a queue."""
        self.broker.manage("DELETE", f"/api/queues/{self.name}/{queue}/contents")

    async def messages(self, queue: str = "kaniko-jobs") -> list[AbstractIncomingMessage]:
        """All that are ready in a queue, in its order. They are put back at the end."""
        async with connected(self.settings()) as connection:
            there = await (await connection.channel()).get_queue(queue, ensure=False)
            found = []
            while (message := await there.get(fail=False)) is not None:
                found.append(message)
            return found
