"""What tests on a real RabbitMQ share: a vhost of their own, and what is in it."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from broker import Broker

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
