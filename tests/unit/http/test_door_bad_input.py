"""The table "Bad input, and what it gets", each cell a test through the port.

Whatever is wrong, the sender gets one answer that names every wrong field, the event is kept as a dead letter (a broker
drops it after a 400), nothing is queued, and the corrected event is taken under the same id.
"""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from builder.errors import EventRejected
from builder.events.amqp import parse_amqp
from builder.events.job_start import ID_RULE
from builder.events.parsing import parse_http
from builder.flow.ports import Entry, LetterFilter
from builder.models import DeadLetter, RejectReason
from tests.unit.http.door import (
    LEFT_OUT,
    PROBLEM,
    QUEUED,
    Delivery,
    Document,
    Door,
    binary,
    example,
    fields_of,
    problem_of,
    raw_binary,
    raw_post,
    serving,
    structured,
)

P = "data.parameters."
STRUCTURED = {"Content-Type": "application/cloudevents+json"}
ROCKET = "\N{ROCKET}"

NO_IDS = {
    "empty": "",
    "slash": "a/b",
    "parent": "..",
    "parent inside": "a..b",
    "path": "../../etc/passwd",
    "backslash": "a\\b",
    "NUL": "a\0b",
    "line feed": "a\nb",
    "line feed last": "ab\n",
    "CR LF": "a\r\nSet-Cookie: x",
    "tab": "a\tb",
    "space": "a b",
    "space first": " ab",
    "single quote": "a'b",
    "double quote": 'a"b',
    "semicolon": "a;reboot",
    "pipe": "a|b",
    "ampersand": "a&b",
    "backtick": "`id`",
    "shell": "$(id)",
    "variable": "$HOME",
    "kubelet's variable": "$(KUBERNETES_SERVICE_HOST)",
    "template": "{{.Values.x}}",
    "format": "{third_party_id}",
    "percent": "%2F",
    "percent, parent": "..%2f..%2f",
    "percent, NUL": "a%00b",
    "percent, CR LF": "a%0d%0ab",
    "percent, twice": "%252e%252e",
    "entity": "a&#47;b",
    "full-width slash": "a\N{FULLWIDTH SOLIDUS}b",
    "full-width dots": "\N{FULLWIDTH FULL STOP}\N{FULLWIDTH FULL STOP}",
    "look-alike": "p\N{CYRILLIC SMALL LETTER A}rser",
    "accent": "é",
    "bidi": "a\N{RIGHT-TO-LEFT OVERRIDE}b",
    "zero width": "a\N{ZERO WIDTH SPACE}b",
    "emoji": ROCKET,
    "hyphen first": "-rf",
    "hyphen last": "a-",
    "dot first": ".git",
    "dot last": "a.",
    "underscore first": "_a",
    "wildcard": "*",
    "comma": "a,b",
    "200,000 characters": "a" * 200_000,
    "number": 7,
    "true": True,
    "list": ["a"],
    "object": {"a": "b"},
}
"""What may stand in no id and in no job name."""

IDS = ["data.correlation_id", "data.job_name", "data.parser_id", "data.third_party_id"]

NO_SOURCES = {
    "empty": "",
    "no URL": "not a url",
    "relative": "//github.com/o/r",
    "http": "http://github.com/o/r",
    "ftp": "ftp://github.com/o/r",
    "file": "file:///etc/passwd",
    "git": "git://github.com/o/r",
    "ssh": "ssh://git@github.com/o/r",
    "scp form": "git@github.com:o/r.git",
    "ext": "ext::sh -c id",
    "javascript": "javascript:alert(1)",
    "data": "data:text/plain,x",
    "dir": "dir:///kaniko",
    "user": "https://user@github.com/o/r",
    "user and password": "https://user:secret@github.com/o/r",
    "user that looks like a host": "https://github.com@169.254.169.254/o/r",
    "loopback": "https://127.0.0.1/o/r",
    "loopback, short": "https://127.1/o/r",
    "loopback, decimal": "https://2130706433/o/r",
    "loopback, octal": "https://0177.0.0.1/o/r",
    "loopback, hexadecimal": "https://0x7f.0.0.1/o/r",
    "loopback, one hexadecimal": "https://0x7f000001/o/r",
    "loopback, IPv6": "https://[::1]/o/r",
    "loopback, IPv4 in IPv6": "https://[::ffff:127.0.0.1]/o/r",
    "loopback, IPv4 in IPv6, hexadecimal": "https://[::ffff:7f00:1]/o/r",
    "metadata": "https://169.254.169.254/latest/meta-data",
    "metadata, decimal": "https://2852039166/latest",
    "metadata, octal": "https://0251.0376.0251.0376/latest",
    "metadata, IPv4 in IPv6": "https://[::ffff:a9fe:a9fe]/latest",
    "metadata, NAT64": "https://[64:ff9b::a9fe:a9fe]/latest",
    "metadata, by name": "https://metadata.google.internal/computeMetadata/v1",
    "private 10": "https://10.0.0.1/o/r",
    "private 172": "https://172.16.0.1/o/r",
    "private 192": "https://192.168.1.1/o/r",
    "carrier": "https://100.64.0.1/o/r",
    "this network": "https://0.0.0.0/o/r",
    "unique local": "https://[fd00::1]/o/r",
    "link-local with zone": "https://[fe80::1%25eth0]/o/r",
    "localhost": "https://localhost/o/r",
    "localhost with a dot": "https://localhost./o/r",
    "single label": "https://kubernetes/api/v1",
    "Service": "https://kubernetes.default.svc/api/v1",
    "Service, whole": "https://kubernetes.default.svc.cluster.local/api/v1",
    "mDNS": "https://printer.local/o/r",
    "full-width host": "https://\N{FULLWIDTH DIGIT ONE}27.0.0.1/o/r",
    "ideographic dots": "https://127\N{IDEOGRAPHIC FULL STOP}0\N{IDEOGRAPHIC FULL STOP}0\N{IDEOGRAPHIC FULL STOP}1/o/r",
    "port 0": "https://github.com:0/o/r",
    "port too high": "https://github.com:65536/o/r",
    "line feed": "https://github.com/o/r\n--destination=evil",
    "CR LF": "https://github.com/o/r\r\nHost: evil",
    "NUL": "https://github.com/o/r\0",
    "tab": "https://git\thub.com/o/r",
    "space": "https://github.com/o/r --destination=evil/x",
    "backslash": "https://github.com\\@10.0.0.1/o/r",
    "option": "--destination=evil/x",
    "option as a path": "https://github.com/o/--upload-pack=id",
    "option after the repository": "https://github.com/o/r/--flag",
    "parent": "https://github.com/o/r/../../x",
    "parent, encoded": "https://github.com/o/r/%2e%2e/x",
    "NUL, encoded": "https://github.com/o/r%00",
    "variable": "https://github.com/o/$(GIT_PASSWORD)",
    "template": "https://github.com/o/{{x}}",
    "query": "https://github.com/o/r?token=secret",
    "fragment": "https://github.com/o/r#refs/heads/x",
    "no repository": "https://github.com/o",
    "no path": "https://github.com",
    "no host": "https:///o/r",
    "bucket with a parent": "s3://bucket/../other",
    "bucket that is none": "s3://B/x.tar.gz",
    "too long": "https://github.com/o/" + "a" * 2048,
    "number": 7,
    "list": ["https://github.com/o/r"],
}

NO_VARIABLES: dict[str, Any] = {
    "environment.1A": {"1A": "x"},
    'environment."A-B C"': {"A-B C": "x"},
    "environment.A-B": {"A-B": "x"},
    'environment.""': {"": "x"},
    'environment."A=B"': {"A=B": "x"},
    'environment."A\\u0000"': {"A\0": "x"},
    'environment."$(A)"': {"$(A)": "x"},
    "environment.RUNTIME": {"RUNTIME": "x"},
    "environment.BASE_IMAGE": {"BASE_IMAGE": "x"},
    "environment.N": {"N": 1},
    "environment.B": {"B": True},
    "environment.F": {"F": 1.5},
    "environment.NONE": {"NONE": None},
    "environment.L": {"L": ["x"]},
    "environment.O": {"O": {"x": "y"}},
    "environment.NUL": {"NUL": "a\0b"},
    "environment.LONG": {"LONG": "x" * (32 * 2**10 + 1)},
    "environment": {f"V{number}": "x" for number in range(65)},
    "environment ": {f"V{number}": "x" * 20_000 for number in range(4)},
    "environment  ": [{"name": "A", "value": "x"}],
    "environment   ": "A=x",
}
"""By the field that is named (spaces tell apart what is named alike)."""

NO_PATHS = ["../x", "a/../../x", "/etc", "", "-o", "a//b", "a\\b", "a\0", "$(A)", "https://x.example/D", "a" * 513, 7]

LISTED: dict[str, list[Any]] = {
    **{
        name: [LEFT_OUT, "", None, 1, True, ["x"], "a\x07", "a" * 1025]
        for name in ("id", "source", "type", "specversion")
    },
    "time": ["yesterday", "2024-01-01", "2024-01-01T00:00:00", "2024-02-30T00:00:00Z", "1704067200", "", 1704067200],
    "subject": ["", "a\nb", 7],
    "dataschema": ["schema/v1", ""],
    "data": [LEFT_OUT, None, {}, [], [{}], "text", 7, True],
    "partitionKey": ["x"],
    "extension": [{"nested": True}, [1], 1.5],
    f"{P}ref": ["--upload-pack=id", "../x", "refs/x", "$(id)", "", "a#b", "a b", "a\nb", "x.lock", "a" * 513, 7],
    f"{P}sub_path": NO_PATHS,
    f"{P}dockerfile": NO_PATHS,
    f"{P}build_timeout": [0, -1, 7201, 10**30, True, 1.0, 1800.5, "1800", "30m", [], {}],
    **{
        f"{place}priority": [0, 11, -1, 10**30, True, False, 1.0, 1.5, "1", "high", [], {}]
        for place in ("data.", "data.parameters.")
    },
    f"{P}runtime": [
        *("cobol", "nodejs", "NodeJS18", "nodejs18 ", "", "nodejs1", "../python3.11", 3.11, True, [], {}),
        *({"language": "python"}, {"language": "python", "version": 3.11}, {"language": "python", "version": "2"}),
    ],
    f"{P}build_type": ["Container", "docker", "", 1, True, ["container"]],
    f"{P}source_url": [LEFT_OUT, *NO_SOURCES.values()],
    **{f"data.{name}": ["a/b", "a" * 101] for name in ("third_party_id", "parser_id", "correlation_id")},
    "data.job_name": ["Job", "a_b", "a" * 254, "a..b", "-a"],
}
"""Values that a member may not have, each on its own."""

TYPES = [
    *("network.notifi.lambda.job.finished", "network.notifi.lambda.job.start ", "NETWORK.NOTIFI.LAMBDA.JOB.START"),
    *("io.knative.lambda.build.started", "*", "../job.start", "network.notifi.lambda.job.start\N{ZERO WIDTH SPACE}"),
]

NO_OBJECTS: list[Any] = ["x", [], 1, True]

OTHERS: list[tuple[dict[str, Any], list[str]]] = [
    *(({"specversion": version}, ["specversion"]) for version in ("0.3", "1.1", "1", "1.0 ")),
    *(({"source": source}, ["source"]) for source in ("a b", "<x>", 'a"b', "a\\b", "{x}")),
    *(({"type": kind}, ["type"]) for kind in TYPES),
    *((dict.fromkeys(IDS, value), IDS) for value in NO_IDS.values()),
    *(({f"{P}environment": value}, [P + field.strip()]) for field, value in NO_VARIABLES.items()),
    *(({"data.parameters": value}, ["data.parameters", f"{P}source_url"]) for value in NO_OBJECTS),
    ({"data_base64": "e30="}, ["data_base64"]),
    ({"data": LEFT_OUT, "data_base64": "%%%"}, ["data_base64"]),
    ({"data": LEFT_OUT, "data_base64": "AAAA"}, ["data"]),
    ({"data.third_party_id": LEFT_OUT, "data.parser_id": LEFT_OUT}, ["data.third_party_id", "data.parser_id"]),
    ({f"{P}build_type": "function", f"{P}runtime": LEFT_OUT}, [f"{P}runtime"]),
    ({f"{P}build_type": "function", f"{P}dockerfile": "D"}, [f"{P}dockerfile"]),
]
"""The members that are wrong, and the fields that the answer names."""

CELLS = [
    *(({path: value}, [path]) for path, values in LISTED.items() for value in values),
    *OTHERS,
]


def told(value: object) -> str:
    """A short name of a cell's members or fields."""
    text = ", ".join(value) if isinstance(value, list) else repr(value)
    return text.encode("ascii", "replace").decode()[:60]


async def assert_rejected(door: Door, delivery: Delivery, fields: list[str]) -> None:
    """The four promises of the table, and that the answer repeats nothing at length."""
    response = await door.deliver(delivery)
    assert (response.status_code, fields_of(response)) == (400, fields)
    assert len(response.content) < 4096
    assert door.queued() == []
    (letter,) = await door.letters()
    assert (letter["reason"], letter["errors"]) == ("invalid", problem_of(response)["errors"])
    assert letter["body_bytes"] or fields == ["data"]
    corrected = await door.deliver(binary(example()))
    assert (corrected.status_code, corrected.content) == (202, QUEUED)
    assert [event.id for event in door.queued()] == ["e-1"]


@pytest.mark.parametrize(("changes", "fields"), CELLS, ids=told)
async def test_wrong_members(door: Door, changes: dict[str, Any], fields: list[str]) -> None:
    """Each cell about an attribute or a field, in structured mode, which can say all of them."""
    await assert_rejected(door, structured(example(changes)), fields)


class Kept:
    """A custodian for what is rejected: as a message's own, but it keeps letters here."""

    def __init__(self) -> None:
        self.letters: list[DeadLetter] = []

    async def seen(self, _identity: bytes) -> bool:
        return False

    async def admit(self, _entry: Entry) -> None:
        pytest.fail("it is no event")

    def outcome(self, _identity: bytes) -> None:
        pytest.fail("it is no event")

    async def park(self, letter: DeadLetter) -> None:
        self.letters.append(letter)


@pytest.mark.parametrize(("changes", "fields"), CELLS, ids=told)
async def test_wrong_members_by_amqp(door: Door, changes: dict[str, Any], fields: list[str]) -> None:
    """The same table by the other road: the same fields and words, one dead letter, where the transport keeps them."""
    body = structured(example(changes)).content
    (item,) = parse_amqp(STRUCTURED["Content-Type"], None, body).items
    kept = Kept()
    with pytest.raises(EventRejected) as rejected:
        await door.parts.intake.take(item, custodian=kept)
    assert [problem.field for problem in rejected.value.problems] == fields
    (letter,) = kept.letters
    assert (letter.reason, letter.problems) == (RejectReason.INVALID, rejected.value.problems)
    assert (door.queued(), await door.letters()) == ([], [])
    by_http = await door.deliver(structured(example(changes)))
    assert problem_of(by_http)["detail"] == str(rejected.value)


@pytest.mark.parametrize("prefix", ["", "ce-", "cloudEvents:"])
def test_wrong_members_in_headers(prefix: str) -> None:
    """In binary mode either road finds the same, whatever the headers are called."""
    compared = 0
    for changes, _ in CELLS:
        event = example(changes)
        attributes = {name: value for name, value in event.items() if not name.startswith("data")}
        # Without a prefix what is no attribute's name is somebody else's header; and HTTP cannot say everything.
        ours = prefix or all(name.isalnum() and name.islower() for name in attributes)
        if not ours or not all(isinstance(value, str) and value.isprintable() for value in attributes.values()):
            continue
        data = json.dumps(event.get("data")).encode()
        by_http = parse_http(None, [(f"ce-{name}", value) for name, value in attributes.items()], data)
        assert parse_amqp(None, {f"{prefix}{name}": value for name, value in attributes.items()}, data) == by_http
        compared += 1
    assert compared > len(CELLS) / 2


async def test_any_mode(door: Door) -> None:
    """The same in binary mode, where the data is the body."""
    await assert_rejected(
        door, binary(example({"data.priority": 0, f"{P}priority": 11})), [f"{P}priority", "data.priority"]
    )


# --- bodies -----------------------------------------------------------------------------------------------------------

NO_JSON = {
    "not JSON": b"priority: 1",
    "cut short": b'{"third_party_id": "acme", "parser_id"',
    "single quotes": b"{'third_party_id': 'acme'}",
    "trailing comma": b'{"a": 1,}',
    "comment": b'{"a": 1 /* one */}',
    "two values": b"{} {}",
    "rubbish at the end": b"{}x",
    "NaN": b'{"priority": NaN}',
    "Infinity": b'{"priority": Infinity}',
    "minus Infinity": b'{"priority": -Infinity}',
    "leading zero": b'{"priority": 01}',
    "hexadecimal": b'{"priority": 0x1}',
    "5000 digits": b'{"priority": %s}' % (b"9" * 5000),
    "key twice": b'{"priority": 1, "priority": 2}',
    "key twice, deep": b'{"parameters": {"environment": {"A": "1", "A": "2"}}}',
    "key twice, once escaped": b'{"priority": 1, "\\u0070riority": 2}',
    "lone byte": b'{"parser_id": "\xff"}',
    "overlong slash": b'{"parser_id": "\xc0\xaf"}',
    "half a surrogate pair in UTF-8": b'{"parser_id": "\xed\xa0\x80"}',
    "half a surrogate pair, escaped": b'{"parser_id": "\\ud800"}',
    "cut character": b'{"parser_id": "\xe2\x82"}',
    "control character": b'{"parser_id": "a\nb"}',
    "bad escape": b'{"parser_id": "\\x41"}',
    "65 levels of arrays": b'{"x": %s%s}' % (b"[" * 65, b"]" * 65),
    "65 levels of objects": b'{"x":' * 65 + b"1" + b"}" * 65,
    "100,000 levels": b"[" * 100_000,
    "XML": b"<?xml version='1.0'?><a/>",
    "form": b"third_party_id=acme&parser_id=p",
}

NO_TEXT = {"empty": b"", "spaces": b" \r\n ", "byte order mark": b"\xef\xbb\xbf{}", "UTF-16": "{}".encode("utf-16")}


@pytest.mark.parametrize("data", NO_JSON.values(), ids=NO_JSON)
async def test_data_is_not_json(door: Door, data: bytes) -> None:
    """In both modes the answer names the place."""
    event = json.dumps(example({"data": "HERE"})).encode().replace(b'"HERE"', data)
    for delivery, field in [(Delivery(STRUCTURED, event), "body"), (binary(example())._replace(content=data), "data")]:
        response = await door.deliver(delivery)
        assert (response.status_code, fields_of(response)) == (400, [field])
        message = problem_of(response)["errors"][0]["message"]
        assert "levels deep" in message or re.search(r" at line \d column \d+$", message)
        assert len(message) < 200
    assert (door.queued(), len(await door.letters())) == ([], 2)
    assert (await door.deliver(structured(example()))).content == QUEUED


@pytest.mark.parametrize("body", NO_TEXT.values(), ids=NO_TEXT)
@pytest.mark.parametrize(("headers", "field"), [(STRUCTURED, "body"), (binary(example()).headers, "data")])
async def test_body_is_no_text(door: Door, headers: dict[str, str], field: str, body: bytes) -> None:
    """What has no place to name is named as what it is."""
    response = await door.deliver(Delivery(headers, body))
    assert (response.status_code, fields_of(response)) == (400, [field])
    assert (door.queued(), len(await door.letters())) == ([], 1)


@pytest.mark.parametrize("value", [None, [], [{}], 7, 1.5, True, "text"])
async def test_structured_event_is_no_object(door: Door, value: object) -> None:
    """A JSON value of another kind is no event."""
    response = await door.deliver(structured(value))
    assert (response.status_code, fields_of(response)[0]) == (400, "body")
    assert (door.queued(), len(await door.letters())) == ([], 1)


# --- headers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["id", "source", "type", "specversion"])
@pytest.mark.parametrize("value", [None, ""])
async def test_required_header_is_missing_or_empty(door: Door, name: str, value: str | None) -> None:
    """Never invented: an event without an ``id`` cannot be told from its own redelivery."""
    headers, content = binary(example())
    rest = {header: text for header, text in headers.items() if header != f"ce-{name}"}
    await assert_rejected(door, Delivery(rest if value is None else {**rest, f"ce-{name}": value}, content), [name])


@pytest.mark.parametrize(
    ("line", "field"),
    [
        (b"ce-subject: a\xffb", "subject"),
        (b"ce-subject: %ff", "subject"),
        (b"ce-subject: %c0%af", "subject"),
        (b"ce-subject: a%00b", "subject"),
        (b"ce-subject: a%0d%0aSet-Cookie: x", "subject"),
        (b"ce-subject: a\xc2\x85b", "subject"),
        (b"ce-subject: \xef\xbf\xbf", "subject"),
        (b"ce-subject: " + b"a" * 1025, "subject"),
        (b"ce-subject: " + b"a" * 10_000, "subject"),
        (b"ce-id: e-2", "id"),
        (b"Ce-Id: e-1", "id"),
        (b"ce-partition_key: x", "partition_key"),
        (b"ce-: x", '""'),
        (b"ce-" + b"a" * 65 + b": x", f'"{"a" * 60}…"'),
        (b"ce-data: x", "data"),
        (b"ce-time: 1704067200", "time"),
    ],
)
async def test_wrong_header(door: Door, line: bytes, field: str) -> None:
    """Bytes that are no text, escapes that hide a control character, one attribute twice, names that are none."""
    answer = await door.exchange(raw_post([*raw_binary(), line], binary(example()).content))
    assert (answer.status, answer.headers["content-type"]) == (400, PROBLEM)
    assert [error["field"] for error in json.loads(answer.body)["errors"]] == [field]
    assert (door.queued(), len(await door.letters())) == ([], 1)
    assert (await door.deliver(binary(example()))).content == QUEUED


async def test_too_many_attributes(door: Door) -> None:
    """64 are plenty."""
    headers = {f"ce-x{number}": "x" for number in range(61)}
    response = await door.deliver(binary(example()), headers=headers)
    assert (response.status_code, fields_of(response)) == (400, ["ce-"])


async def test_no_event_at_all(door: Door) -> None:
    """JSON that says nothing of CloudEvents gets told what is wanted here."""
    response = await door.deliver(Delivery({"Content-Type": "application/json"}, b"{}"))
    wanted = "application/json with ce- headers, application/cloudevents+json or application/cloudevents-batch+json"
    message = f"neither ce- headers nor a CloudEvents content type are there; send {wanted}"
    assert response.status_code == 400
    assert problem_of(response)["errors"][0] == {"field": "", "message": message}


# --- the answer -------------------------------------------------------------------------------------------------------


async def test_one_answer_lists_everything(door: Door) -> None:
    """The whole answer, and the whole dead letter."""
    wrong = {
        "data.third_party_id": "../acme",
        "data.parser_id": LEFT_OUT,
        "data.priority": True,
        f"{P}priority": 11,
        f"{P}runtime": "cobol",
        f"{P}build_timeout": 0,
        f"{P}environment": {"1A": "x", "B": 2},
        f"{P}source_url": "https://10.0.0.1/o/r",
    }
    response = await door.deliver(structured(example(wrong)))
    runtimes = ", ".join(door.parts.settings.build.runtimes)
    messages = {
        "data.parameters.priority": "must be a whole number from 1 (first) to 10",
        "data.priority": "must be a whole number from 1 (first) to 10",
        "data.third_party_id": f"must be {ID_RULE}",
        "data.parser_id": f"is missing; it must be {ID_RULE}",
        "data.parameters.runtime": f'"cobol" is not known; known are {runtimes}',
        "data.parameters.source_url": "must not be an address of a private, local, shared or reserved network",
        "data.parameters.build_timeout": "must be a whole number of seconds from 1 to 7200",
        "data.parameters.environment.1A": "is no name of a variable: a letter or _, then at most 127 letters, digits and _",
        "data.parameters.environment.B": "must be a string",
    }
    errors = [{"field": field, "message": message} for field, message in messages.items()]
    detail = "; ".join(f"{field}: {message}" for field, message in messages.items())
    assert response.status_code == 400
    assert problem_of(response) == {"title": "Bad Request", "status": 400, "detail": detail, "errors": errors}
    (letter,) = await door.letters()
    assert letter.pop("first_at") == letter.pop("last_at")
    assert letter == {
        "id": 1,
        "reason": "invalid",
        "error": "EventRejected 400",
        "message": detail,
        "errors": errors,
        "event": {
            "specversion": "1.0",
            "id": "e-1",
            "source": "network.notifi.kaniko-jobs",
            "type": "network.notifi.lambda.job.start",
            "subject": "parser-id",
            "time": "2024-01-01T00:00:00+00:00",
        },
        "third_party_id": None,
        "attempts": 0,
        "replayed_at": None,
        "content_type": "application/json",
        "body_bytes": len(json.dumps(example(wrong)["data"], separators=(",", ":"))),
    }


@pytest.mark.parametrize("encode", [binary, structured])
async def test_attributes_and_data_in_one_answer(door: Door, encode: Callable[[Document], Delivery]) -> None:
    """A sender that mends the attributes does not learn only then that the data was wrong as well."""
    wrong = {
        "id": "",
        "source": LEFT_OUT,
        "specversion": "0.3",
        "time": "noon",
        "data.priority": 0,
        f"{P}runtime": "cobol",
    }
    response = await door.deliver(encode(example(wrong)))
    assert response.status_code == 400
    assert sorted(fields_of(response)) == [f"{P}runtime", "data.priority", "id", "source", "specversion", "time"]


async def test_attributes_and_broken_data_in_one_answer(door: Door) -> None:
    """Even where the data cannot be read at all."""
    response = await door.deliver(binary(example({"id": ""}))._replace(content=b"{"))
    assert (response.status_code, sorted(fields_of(response))) == (400, ["data", "id"])


async def test_unknown_type_is_told_the_known_ones(door: Door) -> None:
    """400 and never 5xx, for a broker would send it again for ever."""
    response = await door.deliver(binary(example({"type": "network.notifi.lambda.job.stop"})))
    known = [
        "network.notifi.lambda.job.start",
        "io.knative.lambda.command.build.start",
        "network.notifi.lambda.build.start",
        "lambda.build.start",
    ]
    message = f'"network.notifi.lambda.job.stop" is not known here; known are {", ".join(known)}'
    assert response.status_code == 400
    assert problem_of(response)["errors"] == [{"field": "type", "message": message}]


async def test_answer_is_short_and_keeps_secrets(door: Door) -> None:
    """A thousand wrong things are no thousand lines, and no password comes back."""
    environment = {f"not-a-name-{number}": "x" for number in range(60)}
    url = "https://user:hunter2@github.com/o/r"
    response = await door.deliver(structured(example({f"{P}environment": environment, f"{P}source_url": url})))
    fields = fields_of(response)
    assert len(fields) == 51
    assert problem_of(response)["errors"][-1] == {"field": "", "message": "and 11 more problems of the same event"}
    assert "hunter2" not in response.text
    assert "hunter2" not in (await door.client.get("/async-jobs/dead-letters")).text


async def test_bytes_are_kept(door: Door) -> None:
    """Who repairs an event needs what was sent, byte for byte where it could not be read."""
    rubbish = b'{"third_party_id": \xff'
    await door.deliver(binary(example())._replace(content=rubbish))
    await door.deliver(Delivery(STRUCTURED, rubbish))
    letters = await door.parts.office.box.letters(LetterFilter(), 1000)
    assert [(letter.content_type, letter.body) for letter in letters] == [
        ("application/cloudevents+json", rubbish),
        ("application/json", rubbish),
    ]
    assert letters[1].attributes["id"] == "e-1"


async def test_dead_letters_are_bounded() -> None:
    """Hostile senders cannot fill the memory: the oldest make room."""
    async with serving(deadLetters={"maxCount": 3}) as door:
        for number in range(5):
            await door.deliver(binary(example({"id": f"e-{number}", "data.priority": 0})))
        assert [letter["event"]["id"] for letter in await door.letters()] == ["e-4", "e-3", "e-2"]


async def test_source_template_stands_in() -> None:
    """With ``build.sourceTemplate`` an event needs no ``source_url``."""
    async with serving(build={"sourceTemplate": "https://github.com/{third_party_id}/{parser_id}"}) as door:
        response = await door.deliver(structured(example({f"{P}source_url": LEFT_OUT})))
        assert (response.status_code, response.content) == (202, QUEUED)


async def test_allowed_source_hosts() -> None:
    """``intake.allowedSourceHosts`` narrows the sources, and lets an inside host in by its name."""
    async with serving(intake={"allowedSourceHosts": ["git.corp.internal"]}) as door:
        refused = await door.deliver(structured(example()))
        assert (refused.status_code, fields_of(refused)) == (400, [f"{P}source_url"])
        taken = await door.deliver(structured(example({f"{P}source_url": "https://git.corp.internal/a/b.git"})))
        assert taken.status_code == 202
