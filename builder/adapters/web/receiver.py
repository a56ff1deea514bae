"""The HTTP door for events: CloudEvents 1.0 in binary, structured and batched mode.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md
https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/http-webhook.md
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from builder.adapters.web.answers import (
    JSON,
    Answer,
    errors_of,
    json_body,
    problem,
    retry_after,
)
from builder.adapters.web.body import decoded, read_body
from builder.adapters.web.routes import Headers, Route
from builder.errors import EventRejected, NotNow, QueueFull
from builder.events.headers import encodable
from builder.events.parsing import Mode, Rejected, parse_http, parse_plain_http
from builder.failpoints import reach
from builder.flow.intake import Intake
from builder.models import Event
from builder.settings import Intake as IntakeSettings

QUEUED = b'{"status":"queued"}'


class Receiver:
    """Hands events to the intake and says what it said."""

    def __init__(self, intake: Intake, settings: IntakeSettings) -> None:
        self._intake = intake
        self._settings = settings

    def routes(self) -> list[Route]:
        """Where events come in."""
        paths = ("/", "/events")
        posts = [Route("POST", path, self.receive, self.deliver) for path in paths]
        return posts + [Route("OPTIONS", path, self.greet) for path in paths]

    async def receive(self, request: web.BaseRequest) -> Answer:
        """POST: 202 if, and only if, every event of the request is taken care of."""
        try:
            body = await read_body(request, self._settings.max_body_size, self._settings.body_timeout)
        except EventRejected as exc:
            return await self._unread(request.headers, exc)
        return await self.deliver(request.headers, body)

    async def deliver(self, headers: Headers, body: bytes) -> Answer:
        """The same, once all of the request is there."""
        try:
            body = decoded(body, headers.get("content-encoding"), self._settings.max_body_size)
        except EventRejected as exc:
            return await self._unread(headers, exc)
        reach("body_read")
        content_type = headers.get("content-type")
        item: Event | Rejected | None = None
        if isinstance(headers, dict):
            item = parse_plain_http(content_type, headers, body)
        if item is None:
            mode, items = parse_http(content_type, headers.items(), body)
            if mode is Mode.BATCH:
                return await self._batch(headers, items)
            item = items[0]
        ticket = await self._intake.offer(item)
        return self._accepted(headers, QUEUED, ticket.correlation_id)

    async def greet(self, request: web.BaseRequest) -> Answer:
        """OPTIONS: the handshake by which a sender asks whether it may deliver here, and how fast."""
        headers = {"Allow": "POST, OPTIONS"}
        origin = request.headers.get("WebHook-Request-Origin", "")
        if origin and origin.isascii() and origin.isprintable():  # a DNS name: nothing else is worth sending back
            headers["WebHook-Allowed-Origin"] = origin
            headers["WebHook-Allowed-Rate"] = "*"  # a full queue says so with 429
        return Answer(headers=headers)

    async def _unread(self, headers: Headers, error: EventRejected) -> Answer:
        """The attributes are kept as far as the headers have them, the body is not."""
        content_type = headers.get("content-type")
        _, items = parse_http(content_type, headers.items(), b"")
        attributes = items[0].attributes() if isinstance(items[0], Event) else items[0].attributes
        kept = Rejected(attributes, encodable(content_type or ""), b"", error.problems, error.status)
        ticket = await self._intake.offer(kept)
        return self._accepted(headers, QUEUED, ticket.correlation_id)

    def _accepted(self, headers: Headers, body: bytes, correlation_id: str | None = None) -> Answer:
        """With a body, unless the sender's broker would take that for an event."""
        reply = self._settings.reply
        if reply == "empty" or (reply == "auto" and _wants_event(headers)):
            return Answer(202, followed_by=correlation_id)
        return Answer(202, body, JSON, correlation_id)

    async def _batch(self, headers: Headers, items: Sequence[Event | Rejected]) -> Answer:
        # Side by side they share commits, and all of them wait no longer than one may: for slots, and for their ends.
        errors = await asyncio.gather(*(self._taken(item) for item in items))
        return self._batch_answer(headers, [_report(*pair) for pair in zip(items, errors, strict=True)], errors)

    async def _taken(self, item: Event | Rejected) -> EventRejected | NotNow | None:
        try:
            await self._intake.offer(item)
        except (EventRejected, NotNow) as exc:
            return exc
        return None

    def _batch_answer(
        self,
        headers: Headers,
        reports: list[dict[str, Any]],
        errors: Sequence[EventRejected | NotNow | None],
    ) -> Answer:
        """The worst answer of any event is the answer of all: 429 or 503 before 400 before 202."""
        bad = [error for error in errors if error is not None]
        if not bad:
            return self._accepted(headers, json_body({"status": "queued", "events": reports}))
        detail = f"{len(bad)} of {len(errors)} events were not taken in"
        later = next((error for error in bad if isinstance(error, NotNow)), None)
        if later is None:
            statuses = {error.status for error in bad if isinstance(error, EventRejected)}
            # One status for all of them, such as the 415 of a batch that could not be read, is that of the batch.
            alike = len(bad) == len(errors) and len(statuses) == 1
            return problem(statuses.pop() if alike else 400, detail, events=reports)
        status = 429 if isinstance(later, QueueFull) else 503
        return problem(status, detail, headers=retry_after(later.retry_after), events=reports)


def _wants_event(headers: Headers) -> bool:
    """``Prefer: reply``: whatever body comes back, the broker takes it for an event.

    A list of tokens in any case, in one header or in several (https://www.rfc-editor.org/rfc/rfc7240#section-2).
    """
    if "prefer" not in headers:
        return False
    preferences = ",".join(text for name, text in headers.items() if name.lower() == "prefer").lower().split(",")
    return any(preference.partition(";")[0].strip() == "reply" for preference in preferences)


def _report(item: Event | Rejected, error: EventRejected | NotNow | None) -> dict[str, Any]:
    """What became of one event of a batch; the reports stand in the batch's order."""
    report = {"id": item.id if isinstance(item, Event) else item.attributes.get("id")}
    match error:
        case None:
            return report | {"status": "queued"}
        case EventRejected():
            return report | {"status": "rejected", "errors": errors_of(error.problems)}
        case NotNow():
            return report | {"status": "refused", "detail": str(error)}
