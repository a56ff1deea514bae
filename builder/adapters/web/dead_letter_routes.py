"""Dead letters over HTTP: reading is open inside the cluster, replaying and discarding is not."""

import hmac
import json
from collections.abc import Awaitable, Callable
from datetime import datetime
from ipaddress import ip_address
from typing import Any

from aiohttp import web

from builder.adapters.web.answers import errors_of, json_answer, not_now, problem, rejected
from builder.errors import EventRejected, NotNow, Problem
from builder.flow.dead_letters import DeadLetterOffice
from builder.flow.ports import LetterFilter
from builder.models import DeadLetter
from builder.settings import Admin

MASK = "***"
_PAGE = 100

_Handler = Callable[[web.Request], Awaitable[web.Response]]


class DeadLetterRoutes:
    """``/async-jobs/dead-letters`` and below."""

    def __init__(self, office: DeadLetterOffice, admin: Admin) -> None:
        self._office = office
        self._admin = admin

    def routes(self) -> list[web.RouteDef]:
        """All of them."""
        path = "/async-jobs/dead-letters"
        return [
            web.get(path, self.find),
            web.get(path + r"/{id:\d{1,18}}", self.show),
            web.post(path + r"/{id:\d{1,18}}/replay", self._guarded(self.replay)),
            web.post(path + "/replay", self._guarded(self.replay_many)),
            web.delete(path + r"/{id:\d{1,18}}", self._guarded(self.discard)),
        ]

    async def find(self, request: web.Request) -> web.Response:
        """A page of letters, the newest first; ``next`` is the query of the page after it."""
        try:
            wanted, limit = _query(request)
        except EventRejected as exc:
            return rejected(exc)
        letters = await self._office.box.letters(wanted, limit)
        following = letters[-1].id if len(letters) == limit else None
        return json_answer({"items": [_summary(letter) for letter in letters], "next_before": following})

    async def show(self, request: web.Request) -> web.Response:
        """One letter, with its data where ``?body=true`` asks for it; the values of ``environment`` stay hidden."""
        letter = await self._letter(request)
        if letter is None:
            return _unknown(request)
        document = _summary(letter)
        if request.query.get("body") == "true":
            document["data"] = masked(letter.body)
        return json_answer(document)

    async def replay(self, request: web.Request) -> web.Response:
        """Send one again."""
        letter = await self._letter(request)
        if letter is None:
            return _unknown(request)
        try:
            await self._office.replay(letter)
        except EventRejected as exc:
            return rejected(exc)
        except NotNow as exc:
            return not_now(exc)
        return json_answer({"status": "queued"}, status=202)

    async def replay_many(self, request: web.Request) -> web.Response:
        """Send again what the filter wants, the oldest first, at most ``limit`` in one request."""
        try:
            wanted, limit = _query(request)
        except EventRejected as exc:
            return rejected(exc)
        report = await self._office.replay_many(wanted, limit)
        still_wrong = [{"id": letter_id, "message": message} for letter_id, message in report.rejected.items()]
        return json_answer({"queued": report.queued, "rejected": still_wrong}, status=202)

    async def discard(self, request: web.Request) -> web.Response:
        """Forget one."""
        found = await self._office.box.discard(int(request.match_info["id"]))
        return web.Response(status=204) if found else _unknown(request)

    async def _letter(self, request: web.Request) -> DeadLetter | None:
        return await self._office.box.letter(int(request.match_info["id"]))

    def _guarded(self, handler: _Handler) -> _Handler:
        async def guarded(request: web.Request) -> web.Response:
            token = self._admin.token
            if token is None:
                if _from_loopback(request):
                    return await handler(request)
                return problem(403, "only from the loopback interface, or with a token (setting admin.token)")
            given = request.headers.get("Authorization", "").removeprefix("Bearer ")
            if hmac.compare_digest(given.encode(errors="replace"), token.get_secret_value().encode()):
                return await handler(request)
            return problem(401, "needs the bearer token of admin.token", headers={"WWW-Authenticate": "Bearer"})

        return guarded


def masked(body: bytes) -> Any:
    """The data as JSON without the values of any ``environment``; only its size where it is no JSON."""
    try:
        return _hidden(json.loads(body), within=False)
    except (ValueError, RecursionError):
        return f"{len(body)} bytes that are no JSON"


def _hidden(value: Any, *, within: bool) -> Any:
    if isinstance(value, dict):
        return {name: _hidden(member, within=within or name == "environment") for name, member in value.items()}
    if isinstance(value, list):
        return [_hidden(member, within=within) for member in value]
    return MASK if within else value


def _from_loopback(request: web.Request) -> bool:
    # Behind a proxy on the same host everybody would look like loopback: a Forwarded header gives that away.
    if "Forwarded" in request.headers or "X-Forwarded-For" in request.headers or request.remote is None:
        return False
    return ip_address(request.remote.partition("%")[0]).is_loopback


def _query(request: web.Request) -> tuple[LetterFilter, int]:
    """The filter and the page's size from the query.

    Raises:
        EventRejected: names each parameter that is wrong.
    """
    query = request.query
    problems = [Problem(name, "is no parameter here") for name in query if name not in _PARAMETERS]
    times: dict[str, datetime] = {}
    for name in ("since", "until"):
        if (text := query.get(name)) is not None:
            try:
                times[name] = datetime.fromisoformat(text.replace(" ", "+"))
            except ValueError:
                problems.append(Problem(name, "must be a time such as 2024-01-01T00:00:00Z"))
    numbers = {name: query[name] for name in ("limit", "before") if name in query}
    problems += [Problem(name, "must be a whole number") for name, text in numbers.items() if not text.isdecimal()]
    if problems:
        raise EventRejected(problems)
    limit = min(_PAGE, max(1, int(numbers.get("limit", _PAGE))))
    wanted = LetterFilter(
        reason=query.get("reason"),
        type=query.get("type"),
        third_party_id=query.get("third_party_id"),
        since=times.get("since"),
        until=times.get("until"),
        replayed=None if "replayed" not in query else query["replayed"] == "true",
        before=int(numbers["before"]) if "before" in numbers else None,
    )
    return wanted, limit


_PARAMETERS = frozenset({"reason", "type", "third_party_id", "since", "until", "replayed", "limit", "before"})


def _unknown(request: web.Request) -> web.Response:
    return problem(404, f"there is no dead letter {request.match_info['id']} (any more)")


def _summary(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.id,
        "reason": letter.reason.value,
        "error": letter.error or None,
        "message": letter.message,
        "errors": errors_of(letter.problems),
        "event": dict(letter.attributes),
        "third_party_id": letter.third_party_id,
        "attempts": letter.attempts,
        "first_at": letter.first_at.isoformat(),
        "last_at": letter.last_at.isoformat(),
        "replayed_at": None if letter.replayed_at is None else letter.replayed_at.isoformat(),
        "content_type": letter.content_type,
        "body_bytes": len(letter.body),
    }
