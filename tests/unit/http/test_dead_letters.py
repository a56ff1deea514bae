"""Dead letters through the real port, kept in a real file: how people find them, see them and send them again."""

import base64
import json
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from aiohttp import web

from builder.adapters.memory_cluster import MemoryCluster
from builder.errors import Denied, StorageError
from builder.flow.dead_letters import REPLAYED
from builder.flow.ports import LetterFilter
from builder.models import Event, Manifest
from tests.unit.http.door import (
    LEFT_OUT,
    Delivery,
    Document,
    Door,
    batch,
    binary,
    example,
    fields_of,
    numbered,
    problem_of,
    serving,
    structured,
)

LETTERS = "/async-jobs/dead-letters"
WRONG = {"data.priority": 0}
INSIDE = "https://git.corp.internal/a/b.git"
SECRET = "hunter2"
QUICK = {"replayRate": 1000}


class ForbiddingCluster(MemoryCluster):
    """An API server that refuses every Job, as long as ``forbidden``."""

    forbidden = True

    async def create(self, job: Manifest) -> None:
        """Create, if that is allowed."""
        if self.forbidden:
            msg = "jobs.batch is forbidden: no"
            raise Denied(msg, status=403)
        await super().create(job)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The journal's file."""
    return tmp_path / "journal.sqlite3"


@pytest_asyncio.fixture
async def door(file: Path) -> AsyncIterator[Door]:
    """A service with its journal in a file."""
    async with serving(file=file, deadLetters=QUICK) as door:
        yield door


async def post(door: Door, path: str, **more: Any) -> httpx.Response:
    """POST below the letters."""
    return await door.client.post(LETTERS + path, **more)


async def fail(door: Door, *numbers: int) -> None:
    """Events that are taken in and whose Jobs the API server refuses, one after the other."""
    assert isinstance(door.cluster, ForbiddingCluster)
    door.cluster.forbidden = True
    for number in numbers:
        await door.deliver(binary(numbered(number)))
        await door.work()
    door.cluster.forbidden = False


def ids(page: Document) -> list[str]:
    """The events of a page of letters."""
    return [letter["event"]["id"] for letter in page["items"]]


def jobs(door: Door) -> list[str]:
    """The events whose Jobs exist."""
    return [job["metadata"]["annotations"]["build.notifi.network/event-id"] for job in door.cluster.jobs()]


# --- finding ----------------------------------------------------------------------------------------------------------


async def test_pages(door: Door) -> None:
    """The newest first; each page says how to ask for the next, and the last page that there is none."""
    for number in range(5):
        await door.deliver(binary(numbered(number, WRONG)))
    pages, query = [], {"limit": "2"}
    while True:
        response = await door.client.get(LETTERS, params=query)
        page = response.json()
        assert page["count"] == 5
        pages.append(ids(page))
        if page["next_before"] is None:
            break
        query["before"] = str(page["next_before"])
    assert pages == [["e-4", "e-3"], ["e-2", "e-1"], ["e-0"]]


async def test_filters(file: Path) -> None:
    """Each alone, and two together."""
    async with serving(ForbiddingCluster, file=file) as door:
        await fail(door, 1)
        await door.deliver(binary(numbered(2, WRONG)))
        await door.deliver(structured(numbered(3, {"type": "some.other.type"})))
        await door.deliver(binary(numbered(4, {**WRONG, "data.third_party_id": "acme"})))
        await post(door, "/1/replay")
        for query, wanted in {
            "reason=forbidden": ["e-1"],
            "reason=invalid": ["e-4", "e-3", "e-2"],
            "type=some.other.type": ["e-3"],
            "third_party_id=acme": ["e-4"],
            "third_party_id=acme&reason=forbidden": [],
            "replayed=true": ["e-1"],
            "replayed=false": ["e-4", "e-3", "e-2"],
            "since=2000-01-01": ["e-4", "e-3", "e-2", "e-1"],
            "since=2000-01-01T00:00:00Z&until=2000-01-02T00:00:00Z": [],
            "until=2999-01-01T00:00:00%2B02:00&limit=1": ["e-4"],
            "until=2999-01-01T00:00:00+02:00&limit=1": ["e-4"],
            "limit=1000": ["e-4", "e-3", "e-2", "e-1"],
        }.items():
            assert ids(await door.get(f"{LETTERS}?{query}")) == wanted, query


async def test_time_is_that_of_the_last_failure(door: Door) -> None:
    """``since`` includes its moment and ``until`` does not, so that neighbouring spans share no letter."""
    await door.deliver(binary(numbered(1, WRONG)))
    (letter,) = await door.letters()
    at = datetime.fromisoformat(letter["last_at"])
    after = at + timedelta(microseconds=1)
    for query, wanted in [
        ({"since": at}, ["e-1"]),
        ({"since": after}, []),
        ({"until": at}, []),
        ({"until": after}, ["e-1"]),
    ]:
        params = {name: moment.isoformat() for name, moment in query.items()}
        assert ids((await door.client.get(LETTERS, params=params)).json()) == wanted, query


@pytest.mark.parametrize("path", ["", "/replay"])
async def test_wrong_parameters_are_named(door: Door, path: str) -> None:
    """All of them at once; a filter that is not understood must not mean "all"."""
    await door.deliver(binary(numbered(1, WRONG)))
    wrong = {
        "resaon": "invalid",
        "reason": "forbiden",
        "since": "yesterday",
        "until": "2024-13-01",
        "limit": "0",
        "before": "-1",
        "replayed": "maybe",
    }
    method = "POST" if path else "GET"
    response = await door.client.request(method, LETTERS + path, params=wrong)
    assert response.status_code == 400
    assert sorted(fields_of(response)) == sorted(wrong)
    assert (await door.letters())[0]["replayed_at"] is None


# --- seeing -----------------------------------------------------------------------------------------------------------


async def test_letter_of_a_rejected_event(door: Door) -> None:
    """Why, and of which event; its data only where that is asked for."""
    response = await door.deliver(binary(numbered(1, WRONG)))
    letter = await door.get(f"{LETTERS}/1")
    assert (letter["reason"], letter["error"], letter["attempts"]) == ("invalid", "EventRejected 400", 0)
    assert (letter["message"], letter["errors"]) == (problem_of(response)["detail"], problem_of(response)["errors"])
    assert (letter["event"]["id"], letter["third_party_id"]) == ("e-1", numbered(1)["data"]["third_party_id"])
    assert "data" not in letter
    assert letter == (await door.letters())[0]
    assert (await door.get(f"{LETTERS}/1?body=true"))["data"]["priority"] == 0


async def test_letter_of_a_failed_event(file: Path) -> None:
    """The API server's own words, the error's class, how often it was tried and when."""
    async with serving(ForbiddingCluster, file=file) as door:
        await fail(door, 1)
        letter = await door.get(f"{LETTERS}/1")
        assert (letter["reason"], letter["error"], letter["attempts"]) == ("forbidden", "Denied 403", 1)
        assert letter["message"] == "jobs.batch is forbidden: no"
        assert letter["first_at"] < letter["last_at"]
        assert letter["replayed_at"] is None


@pytest.mark.parametrize("encode", [binary, structured])
async def test_environment_is_masked(door: Door, encode: Callable[[Document], Delivery]) -> None:
    """Its names stay, its values never show, whatever they are and wherever it stands."""
    environment = {"TOKEN": SECRET, "DEEP": {"er": [SECRET, {"est": SECRET}]}}
    changes = {"data.parameters.environment": environment, "data.more": [{"Environment": SECRET}], "subject": ""}
    await door.deliver(encode(example(changes)))
    response = await door.client.get(f"{LETTERS}/1?body=true")
    assert SECRET not in response.text
    shown = response.json()["data"]
    data = shown.get("data", shown)
    assert data["parameters"]["environment"] == {"TOKEN": "***", "DEEP": {"er": ["***", {"est": "***"}]}}
    assert data["more"] == [{"Environment": "***"}]
    assert data["parameters"]["runtime"] == "nodejs18"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"https://me:{SECRET}@git.example.com/a/b", "https://***@git.example.com/a/b"),
        (f"see git+ssh://{SECRET}@h.org and s3://b/k", "see git+ssh://***@h.org and s3://b/k"),
        (f"https://me:a/{SECRET}@h.org/a", "https://***@h.org/a"),
        (f"https://me:a@{SECRET}@h.org/a", "https://***@h.org/a"),
        ("https://git.example.com/a/b@v1", "https://git.example.com/a/b@v1"),
    ],
)
async def test_passwords_in_urls_are_masked(door: Door, url: str, shown: str) -> None:
    """A source that was rejected for its credentials must not be where they are read."""
    await door.deliver(
        binary(example({"data.parameters.source_url": url, "data.parser_id": "../", "data.note": [url]}))
    )
    response = await door.client.get(f"{LETTERS}/1?body=true")
    assert SECRET not in response.text
    data = response.json()["data"]
    assert (data["parameters"]["source_url"], data["note"]) == (shown, [shown])


async def test_environment_is_masked_in_coded_data(door: Door) -> None:
    """Base64 and JSON in a string hide nothing by themselves."""
    data = json.dumps({"parameters": {"environment": {"TOKEN": SECRET}}})
    coded = base64.b64encode(data.encode()).decode()
    await door.deliver(structured({**example({"data": LEFT_OUT, "subject": ""}), "data_base64": coded}))
    await door.deliver(structured(example({"data": data})))
    for number in (1, 2):
        response = await door.client.get(f"{LETTERS}/{number}?body=true")
        assert SECRET not in response.text
        assert coded not in response.text
        assert '{"TOKEN": "***"}' in response.text


@pytest.mark.parametrize(
    "rubbish",
    [b'{"environment": {"TOKEN": "hunter2"', b"environment: hunter2", b"\xff hunter2", b"[" * 9999 + b"hunter2"],
)
async def test_what_cannot_be_read_is_not_shown(door: Door, rubbish: bytes) -> None:
    """Nobody knows where the secrets are in it: its size must do."""
    await door.deliver(binary(example())._replace(content=rubbish))
    letter = await door.get(f"{LETTERS}/1?body=true")
    assert letter["data"] == f"{len(rubbish)} bytes that are no JSON"


async def test_numbers_that_are_no_json(door: Door) -> None:
    """Python would read and write ``NaN``, which no other program understands."""
    await door.deliver(binary(example())._replace(content=b'{"a": NaN, "b": -Infinity, "c": 1e999, "d": 1.5}'))
    letter = await door.get(f"{LETTERS}/1?body=true")
    assert letter["data"] == {"a": "NaN", "b": "-Infinity", "c": "1e999", "d": 1.5}


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/7"), ("POST", "/7/replay"), ("DELETE", "/7"), ("GET", "/999999999999999999"), ("GET", "/seven")],
)
async def test_unknown_letters(door: Door, method: str, path: str) -> None:
    """404 as a problem."""
    response = await door.client.request(method, LETTERS + path)
    assert (response.status_code, problem_of(response)["title"]) == (404, "Not Found")


async def test_discard(door: Door) -> None:
    """It is gone, once."""
    await door.deliver(binary(numbered(1, WRONG)))
    gone = await door.client.delete(f"{LETTERS}/1")
    assert (gone.status_code, gone.content) == (204, b"")
    assert await door.letters() == []
    assert (await door.client.delete(f"{LETTERS}/1")).status_code == 404


async def test_a_disk_in_trouble(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 and come again, never a 500, whatever was asked for."""

    async def broken(*_: object) -> None:
        msg = "disk I/O error"
        raise StorageError(msg)

    for name in ("letters", "letter", "discard"):
        monkeypatch.setattr(door.parts.office.box, name, broken)
    for method, path in [("GET", ""), ("GET", "/1"), ("POST", "/1/replay"), ("POST", "/replay"), ("DELETE", "/1")]:
        response = await door.client.request(method, LETTERS + path)
        assert (response.status_code, problem_of(response)["detail"]) == (503, "disk I/O error"), (method, path)
        assert response.headers["Retry-After"] == "5"


# --- sending one again ------------------------------------------------------------------------------------------------


async def test_replay_of_a_failed_event(file: Path) -> None:
    """Once the cause is mended: the Job of the same event is made, and both the event and the letter tell of it."""
    async with serving(ForbiddingCluster, file=file) as door:
        await fail(door, 1)
        response = await post(door, "/1/replay")
        assert (response.status_code, response.json()) == (202, {"status": "queued"})
        (event,) = door.queued()
        assert (event.id, event.source, event.extensions) == ("e-1", "network.notifi.kaniko-jobs", {REPLAYED: "true"})
        await door.work()
        assert jobs(door) == ["e-1"]
        assert (await door.get("/async-jobs/c-1"))["status"] == "created"
        (letter,) = await door.letters()
        assert datetime.fromisoformat(letter["replayed_at"]) > datetime.fromisoformat(letter["last_at"])


async def test_replaying_twice_is_replaying_once(file: Path) -> None:
    """The same answer, and no second item, while the first is queued and after it is done."""
    async with serving(ForbiddingCluster, file=file) as door:
        await fail(door, 1)
        for _ in range(2):
            response = await post(door, "/1/replay")
            assert (response.status_code, response.json()) == (202, {"status": "queued"})
            assert len(door.queued()) == 1
        await door.work()
        assert (await post(door, "/1/replay")).status_code == 202
        assert (door.queued(), jobs(door)) == ([], ["e-1"])


async def test_replay_that_fails_again(file: Path) -> None:
    """One event has one letter, which counts its tries and may be replayed once more."""
    async with serving(ForbiddingCluster, file=file) as door:
        await fail(door, 1)
        assert isinstance(door.cluster, ForbiddingCluster)
        door.cluster.forbidden = True
        await post(door, "/1/replay")
        await door.work()
        (letter,) = await door.letters()
        assert (letter["id"], letter["attempts"], letter["replayed_at"]) == (1, 2, None)
        door.cluster.forbidden = False
        await post(door, "/1/replay")
        await door.work()
        assert jobs(door) == ["e-1"]


async def test_replay_of_what_is_still_wrong(door: Door) -> None:
    """The same 400 as at the door, and the letter stays as it was."""
    first = await door.deliver(binary(numbered(1, WRONG)))
    before = await door.letters()
    again = await post(door, "/1/replay")
    assert (again.status_code, problem_of(again)) == (400, problem_of(first))
    assert (door.queued(), await door.letters()) == ([], before)


async def test_replay_of_what_the_settings_allow_now(file: Path) -> None:
    """A letter of yesterday's settings is judged by today's, without the sender doing anything."""
    async with serving(file=file) as door:
        refused = await door.deliver(binary(example({"data.parameters.source_url": INSIDE})))
        assert refused.status_code == 400
        assert (await post(door, "/1/replay")).status_code == 400
    async with serving(file=file, intake={"allowedSourceHosts": ["git.corp.internal"]}) as door:
        assert (await post(door, "/1/replay")).status_code == 202
        await door.work()
        assert jobs(door) == ["e-1"]


STRANGE = 'a "quoted" 100% %2F %41 \\ é \N{ROCKET} "'


@pytest.mark.parametrize("encode", [binary, structured])
async def test_replay_keeps_every_attribute(file: Path, encode: Callable[[Document], Delivery]) -> None:
    """Percent signs, quotes and all that headers escape: what comes back is what was sent."""
    attributes = {
        "id": STRANGE,
        "source": "/a%2Fb?c=%22",
        "subject": f'"{STRANGE}"',
        "ext": "%",
        "correlationid": STRANGE,
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }
    sent = example({**attributes, "data.parameters.source_url": INSIDE})
    if encode is binary:  # as a sender must write them
        escaped = {
            name: "".join(f"%{byte:02X}" for byte in value.encode()) if name != "traceparent" else value
            for name, value in attributes.items()
        }
        sent |= escaped
    async with serving(file=file) as door:
        assert (await door.deliver(encode(sent))).status_code == 400
    async with serving(file=file, intake={"allowedSourceHosts": ["git.corp.internal"]}) as door:
        assert (await post(door, "/1/replay")).status_code == 202
        (event,) = door.queued()
        extensions = {name: attributes[name] for name in ("ext", "correlationid", "traceparent")}
        assert event == Event(
            id=STRANGE,
            source=attributes["source"],
            type=example()["type"],
            subject=attributes["subject"],
            time=datetime.fromisoformat(example()["time"]),
            extensions={**extensions, REPLAYED: "true"},
            data=event.data,
        )
        assert json.loads(event.data) == sent["data"]


async def test_replay_of_a_structured_message(door: Door) -> None:
    """One whose attributes were wrong is kept whole, and judged whole."""
    await door.deliver(structured(example({"id": ""})))
    assert (await door.get(f"{LETTERS}/1"))["content_type"] == "application/cloudevents+json"
    assert fields_of(await post(door, "/1/replay")) == ["id"]


async def test_replay_of_an_element_of_a_batch(file: Path) -> None:
    """It has a letter of its own."""
    async with serving(file=file) as door:
        await door.deliver(batch(numbered(0), numbered(1, {"data.parameters.source_url": INSIDE})))
        await door.work()
    async with serving(file=file, intake={"allowedSourceHosts": ["git.corp.internal"]}) as door:
        assert (await post(door, "/1/replay")).status_code == 202
        assert [event.id for event in door.queued()] == ["e-1"]


@pytest.mark.parametrize(
    ("headers", "field"),
    [
        ([("ce-id", "x" * 1025)], "id"),
        ([("ce-subject", "x" * 1025)], "subject"),
        ([("ce-ext", "a"), ("ce-ext", "b")], "ext"),
        ([("ce-ext", "%FF")], "ext"),
        ([("ce-no_name", "a")], "no_name"),
    ],
    ids=["long id", "long subject", "twice", "no UTF-8", "no name"],
)
async def test_replay_of_attributes_that_were_not_kept_whole(
    door: Door, headers: list[tuple[str, str]], field: str
) -> None:
    """A letter keeps what was right of them: with the rest cut off it would be another event."""
    event = binary(example())
    names = {name for name, _ in headers}
    sent = [pair for pair in event.headers.items() if pair[0] not in names]
    response = await door.client.post("/", content=event.content, headers=[*sent, *headers])
    assert (response.status_code, fields_of(response)) == (400, [field])
    again = await post(door, "/1/replay")
    assert (again.status_code, fields_of(again)) == (400, [field])
    assert door.queued() == []


async def test_replay_of_what_was_too_large_to_keep(file: Path) -> None:
    """Only its sender has it."""
    async with serving(file=file, intake={"maxBodySize": 2048}) as door:
        await door.deliver(binary(example({"data.parameters.environment": {"A": "x" * 4096}})))
        again = await post(door, "/1/replay")
        assert (again.status_code, fields_of(again)) == (400, ["body"])
        assert "maxBodySize" in problem_of(again)["detail"]


async def test_replay_into_a_full_queue(file: Path) -> None:
    """429; the letter waits for a better moment."""
    settings: dict[str, Any] = {"asyncJobCreator": {"maxQueueSize": 1}, "intake": {"slotWait": "1ms"}}
    async with serving(ForbiddingCluster, file=file, **settings) as door:
        await fail(door, 1)
        await door.deliver(binary(numbered(2)))
        assert (await post(door, "/1/replay")).status_code == 429
        assert (await door.letters())[0]["replayed_at"] is None
        await door.work()
        assert (await post(door, "/1/replay")).status_code == 202


# --- sending many again -----------------------------------------------------------------------------------------------


async def test_replay_with_a_filter(file: Path) -> None:
    """The oldest first; what is still wrong is told and does not hold up the others."""
    async with serving(ForbiddingCluster, file=file, deadLetters=QUICK) as door:
        await door.deliver(binary(numbered(0, WRONG)))
        await fail(door, 1, 2, 3)
        response = await post(door, "/replay?limit=2")
        report = response.json()
        assert (response.status_code, report["queued"], report["stopped"]) == (202, 2, None)
        assert report["rejected"] == [
            {"id": 1, "message": "data.priority: must be a whole number from 1 (first) to 10"}
        ]
        assert [event.id for event in door.queued()] == ["e-1", "e-2"]
        rest = (await post(door, "/replay?reason=forbidden")).json()
        assert (rest["queued"], rest["rejected"]) == (1, [])
        nothing = (await post(door, "/replay?reason=forbidden&replayed=true")).json()
        assert (nothing["queued"], len(door.queued())) == (0, 3)


async def test_more_wrong_letters_than_a_page(file: Path) -> None:
    """However many are still wrong, the good one behind them is found."""
    async with serving(ForbiddingCluster, file=file, deadLetters=QUICK) as door:
        for number in range(101):
            await door.deliver(binary(numbered(number, WRONG)))
        await fail(door, 500)
        report = (await post(door, "/replay?limit=1")).json()
        assert (report["queued"], len(report["rejected"])) == (1, 101)
        assert [event.id for event in door.queued()] == ["e-500"]


async def test_replay_has_a_rate(file: Path) -> None:
    """A queue of builds must not be flooded by old ones: between any two there is a pause."""
    pauses: list[float] = []

    async def sleep(delay: float) -> None:
        pauses.append(delay)

    async with serving(ForbiddingCluster, file=file, deadLetters={"replayRate": 4}) as door:
        await fail(door, 1, 2, 3)
        report = await door.parts.office.replay_many(LetterFilter(), 3, sleep)
        assert (report.queued, pauses) == (3, [0.25, 0.25])


async def test_full_queue_ends_it_early(file: Path) -> None:
    """What did not get in is still there for the next time, and the report says why."""
    settings: dict[str, Any] = {"asyncJobCreator": {"maxQueueSize": 2}, "intake": {"slotWait": "1ms"}}
    async with serving(ForbiddingCluster, file=file, deadLetters=QUICK, **settings) as door:
        await fail(door, 1, 2, 3, 4)
        report = (await post(door, "/replay")).json()
        assert (report["queued"], report["stopped"]) == (2, "the queue of 2 is full")
        assert ids(await door.get(f"{LETTERS}?replayed=false")) == ["e-4", "e-3"]
        await door.work()
        assert (await post(door, "/replay")).json()["queued"] == 2


async def test_who_goes_on_does_not_meet_the_same_again(file: Path) -> None:
    """With the report's ``until``, an event that failed once more meanwhile is left alone."""
    async with serving(ForbiddingCluster, file=file, deadLetters=QUICK) as door:
        await fail(door, 1)
        assert isinstance(door.cluster, ForbiddingCluster)
        door.cluster.forbidden = True
        report = (await post(door, "/replay")).json()
        await door.work()
        again = (await door.client.post(f"{LETTERS}/replay", params={"until": report["until"]})).json()
        assert (report["queued"], again["queued"], again["until"]) == (1, 0, report["until"])
        assert (await post(door, "/replay")).json()["queued"] == 1


# --- who may ----------------------------------------------------------------------------------------------------------

CHANGES = [("POST", "/1/replay"), ("POST", "/replay"), ("DELETE", "/1")]


@pytest.mark.parametrize(("method", "path"), CHANGES)
@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "Via", "X-Real-IP", "X-Envoy-External-Address"])
async def test_loopback_alone_without_a_token(door: Door, method: str, path: str, header: str) -> None:
    """Behind a proxy on the same host everybody comes by loopback; the proxy's headers give that away."""
    await door.deliver(binary(numbered(1, WRONG)))
    response = await door.client.request(method, LETTERS + path, headers={header: "127.0.0.1"})
    assert response.status_code == 403
    assert "admin.token" in problem_of(response)["detail"]
    assert len(await door.letters()) == 1
    assert (await door.client.get(f"{LETTERS}/1", headers={header: "127.0.0.1"})).status_code == 200


@pytest.mark.parametrize(
    ("remote", "status"),
    [("127.0.0.1", 202), ("127.8.9.10", 202), ("::1", 202), ("10.1.2.3", 403), ("fe80::1%eth0", 403), (None, 403)],
)
async def test_only_the_loopback_interface(
    door: Door, monkeypatch: pytest.MonkeyPatch, remote: str | None, status: int
) -> None:
    """By the address of the connection itself, which nobody can claim."""
    monkeypatch.setattr(web.BaseRequest, "remote", remote)
    assert (await post(door, "/replay")).status_code == status
    assert (await door.client.get(LETTERS)).status_code == 200


@pytest.mark.parametrize(("method", "path"), CHANGES)
async def test_token(file: Path, method: str, path: str) -> None:
    """Whoever has it may, from anywhere; nobody else may, from nowhere. Reading is open."""
    async with serving(file=file, deadLetters=QUICK, admin={"token": "s3cret-of-the-house"}) as door:
        await door.deliver(binary(numbered(1, WRONG)))
        for wrong in [
            "",
            "Bearer",
            "Bearer nonsense",
            "s3cret-of-the-house",
            "Basic s3cret-of-the-house",
            "Bearer s3cret-of-the-house2",
            "Bearer é",
        ]:
            headers = {b"Authorization": wrong.encode()} if wrong else {}
            response = await door.client.request(method, LETTERS + path, headers=headers)
            assert (response.status_code, response.headers["WWW-Authenticate"]) == (401, "Bearer"), wrong
            assert "s3cret-of-the-house" not in response.text
        assert ids(await door.get(LETTERS)) == ["e-1"]
        for right in ["Bearer s3cret-of-the-house", "bearer s3cret-of-the-house"]:
            headers = {b"Authorization": right.encode(), b"X-Forwarded-For": b"203.0.113.7"}
            response = await door.client.request(method, LETTERS + path, headers=headers)
            assert response.status_code in {202, 204, 400, 404}
        assert len(await door.letters()) == (0 if method == "DELETE" else 1)
