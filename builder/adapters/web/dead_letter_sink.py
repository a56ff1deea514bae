"""The dead letter sink of a Knative Trigger: keeps what the broker could not deliver, beside our own dead letters.

https://github.com/knative/specs/blob/main/specs/eventing/data-plane.md#event-delivery
"""

from collections.abc import Mapping

from aiohttp import web

from builder.adapters.web.answers import Answer
from builder.adapters.web.body import decoded, read_body
from builder.adapters.web.routes import Route
from builder.errors import EventRejected
from builder.events.attributes import MAX_VALUE
from builder.events.headers import encodable
from builder.events.parsing import Rejected, parse_http
from builder.flow.dead_letters import BROKER_MARKS
from builder.flow.intake import Intake
from builder.models import Event
from builder.settings import Intake as IntakeSettings

_PREFIX = "ce-"


class DeadLetterSink:
    """``POST /dead-letters``."""

    def __init__(self, intake: Intake, settings: IntakeSettings) -> None:
        self._intake = intake
        self._settings = settings

    def routes(self) -> list[Route]:
        """One."""
        return [Route("POST", "/dead-letters", self.keep)]

    async def keep(self, request: web.BaseRequest) -> Answer:
        """Keep whatever came: nobody else would. 202 without a body, which no broker takes for an event."""
        content_type = request.headers.get("Content-Type")
        marks = _marks(request.headers)
        # The broker's own marks are no part of the event, and may be longer than an attribute may be.
        headers = [one for one in request.headers.items() if not one[0].lower().startswith(_PREFIX + BROKER_MARKS)]
        try:
            body = await read_body(request, self._settings.max_body_size, self._settings.body_timeout)
            body = decoded(body, request.headers.get("Content-Encoding"), self._settings.max_body_size)
        except EventRejected as exc:
            (item, *_) = parse_http(content_type, headers, b"").items
            attributes = item.attributes() if isinstance(item, Event) else item.attributes
            kept = Rejected(attributes, encodable(content_type or ""), b"", exc.problems, exc.status)
            await self._intake.bury(kept, f"{_words(marks)}; {exc}", marks)
        else:
            for item in parse_http(content_type, headers, body).items:
                await self._intake.bury(item, _words(marks), marks)
        return Answer(202)


def _marks(headers: Mapping[str, str]) -> dict[str, str]:
    """What the broker says of its failure, as attributes."""
    named = {name.lower().removeprefix(_PREFIX): value for name, value in headers.items()}
    return {name: encodable(value)[:MAX_VALUE] for name, value in named.items() if name.startswith(BROKER_MARKS)}


def _words(marks: Mapping[str, str]) -> str:
    code, at = marks.get(f"{BROKER_MARKS}code"), marks.get(f"{BROKER_MARKS}dest")
    parts = [f"answer {code}" if code else "", f"of {at}" if at else ""]
    why = " ".join(part for part in parts if part)
    return f"the broker gave it up{': ' if why else ''}{why}"
