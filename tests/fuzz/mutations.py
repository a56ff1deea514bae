"""Requests that are nearly right: honest ones, changed by chance. Each is made anew from the seed and its number."""

import copy
import json
import random
from collections.abc import Callable
from typing import Any, NamedTuple

from tests import building

Header = tuple[str, str]


class Case(NamedTuple):
    """A request. ``headers`` have at most one ``Content-Type``."""

    headers: list[Header]
    body: bytes

    @property
    def content_type(self) -> str | None:
        """As the door finds it."""
        return next((value for name, value in self.headers if name.lower() == "content-type"), None)


STRINGS = [
    *(
        "",
        " ",
        "a",
        "..",
        ".",
        "/",
        "//",
        "a/../b",
        "../../etc/passwd",
        "/etc/passwd",
        "-",
        "--flag",
        "a--b",
        "A" * 101,
    ),
    *("a" * 63, "a" * 64, "a" * 254, "$(SECRET)", "$$(X)", "$", "%00", "%2e%2e", "\0", "\n", "\r\n", "\u2028", "é"),
    *("\ud800", "\U0001f600", "null", "true", "NaN", "{}", "[]", "1", "0x10", "2024-01-01T00:00:00Z", "2024-13-01"),
    *("9999-12-31T23:59:59Z", "0001-01-01T00:00:00+23:59", "network.notifi.lambda.job.start", "nodejs18", "python3.11"),
    *("container", "function", "BASE_IMAGE", "RUNTIME", "BUILDKIT_SYNTAX", "1.0", "0.3", "application/json"),
]
URLS = [
    *("https://github.com/a/b", "git://github.com/a/b.git#refs/heads/x", "s3://bucket/key.tar.gz", "gs://bucket/key"),
    *(
        "https://github.com/a/b/tree/main/../..",
        "http://github.com/a/b",
        "file:///etc/passwd",
        "https://user:pw@h.org/a",
    ),
    *(
        "https://127.0.0.1/a",
        "https://[::1]/a",
        "https://169.254.169.254/latest",
        "https://0x7f.1/a",
        "https://2130706433/a",
    ),
    *("https://localhost/a", "https://kubernetes.default.svc/a", "https://a.cluster.local/a", "https://①②⑦.0.0.1/a"),
    *("https://h.org:99999/a", "https://h.org/a#b c", "https://h.org/$(X)/b", "https://h.org\\@10.0.0.1/a", "dir:///"),
    *(
        "https://[::ffff:10.0.0.1]/a",
        "https://10.1/a",
        "https://h.org/a.tar.gz?x=$(Y)",
        "https://metadata.google.internal/",
    ),
]
VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 5, 10, 11, 1.5, 2**31, 2**63, 2**64, -(2**70), 1e308, float("inf"), float("nan")),
    *([], {}, [[]], {"": ""}, {"a": None}, {"language": "python", "version": "3.11"}, {"language": 3}, ["a"] * 70),
    *({f"V{number}": "x" for number in range(65)}, {"BIG": "x" * 33_000}, {"a b": "c"}, {"$(A)": "$(B)"}, "x" * 5000),
]
TOKENS = [
    *(b"null", b"{}", b"[]", b'""', b"1e400", b"-0", b"\\ud800", b"\\u0000", b"\xff", b"\xc0\x80", b"\xef\xbb\xbf"),
    *(b'"id":"x",', b'"data":', b'"data_base64":"e30="', b"[" * 300, b"{" * 40, b"}" * 40, b",", b":", b"\\", b'"'),
]
CONTENT_TYPES = [
    *("application/json", "application/cloudevents+json", "application/cloudevents-batch+json", "text/plain", ""),
    *(
        "application/cloudevents+json; charset=utf-8",
        "application/cloudevents+json; charset=utf-16",
        "APPLICATION/JSON",
    ),
    *("application/cloudevents", "application/cloudevents+xml", "application/cloudevents-batch", "a/b;;;", "\0"),
]


def case(seed: str, number: int) -> Case:
    """The request of that number; one in ten is as honest as it began."""
    draw = random.Random(f"{seed} {number}")  # noqa: S311 -- to be repeated, not to be secret
    documents = [honest(number * 3 + place, draw) for place in range(draw.choice((1, 1, 1, 2, 3)))]
    for _ in range(draw.choice((0, 0, 1, 1, 2, 3))):
        _change(draw.choice(documents), draw)
    made = _WAYS[draw.randrange(3)](documents)
    for _ in range(draw.choice((0, 0, 0, 0, 1, 1, 2, 8))):
        made = draw.choice(_DAMAGES)(made, draw)
    return made


def honest(number: int, draw: random.Random) -> dict[str, Any]:
    """An event for a target of its own, as it should be."""
    document = copy.deepcopy(building.EXAMPLE)
    document["id"] = f"f-{number}"
    document["data"] |= {"parser_id": f"p{number}", "correlation_id": f"c-{number}"}
    del document["data"]["job_name"]
    if draw.random() < 0.3:
        document["data"]["parameters"]["build_type"] = "function"
    return document


def _change(document: dict[str, Any], draw: random.Random) -> None:
    """One member anywhere in it: another value, another name, or none."""
    places = list(_members(document))
    place, name = draw.choice(places)
    match draw.randrange(6):
        case 0:
            del place[name]
        case 1:
            place[draw.choice([*STRINGS, "ref", "sub_path", "dockerfile", "job_name", "data_base64"])] = place[name]
        case 2:
            place[name] = draw.choice(URLS)
        case 3 | 4:
            place[name] = draw.choice(STRINGS)
        case _:
            place[name] = copy.deepcopy(draw.choice(VALUES))


def _members(place: Any) -> Any:
    if isinstance(place, dict):
        for name, member in place.items():
            yield place, name
            yield from _members(member)


def _text(value: Any) -> bytes:
    return json.dumps(value).encode()


def structured(documents: list[dict[str, Any]]) -> Case:
    """The first of them, whole in the body."""
    return Case([("Content-Type", "application/cloudevents+json")], _text(documents[0]))


def _batch(documents: list[dict[str, Any]]) -> Case:
    return Case([("Content-Type", "application/cloudevents-batch+json")], _text(documents))


def binary(documents: list[dict[str, Any]]) -> Case:
    """The first of them, its attributes in headers."""
    document = documents[0]
    headers = [(f"ce-{name}", _as_text(value)) for name, value in document.items() if name != "data"]
    kind = document.get("datacontenttype", "application/json")
    return Case([*headers, ("Content-Type", _as_text(kind))], _text(document.get("data")))


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


_WAYS = (structured, _batch, binary)


# --- damage to the bytes and the headers ------------------------------------------------------------------------------


def _flip(made: Case, draw: random.Random) -> Case:
    if not made.body:
        return made
    body = bytearray(made.body)
    body[draw.randrange(len(body))] ^= 1 << draw.randrange(8)
    return made._replace(body=bytes(body))


def _slice(made: Case, draw: random.Random) -> Case:
    """A piece goes, or comes twice."""
    begin, end = sorted(draw.randrange(len(made.body) + 1) for _ in range(2))
    piece = made.body[begin:end]
    return made._replace(body=made.body[:begin] + piece * draw.choice((0, 2)) + made.body[end:])


def _insert(made: Case, draw: random.Random) -> Case:
    at = draw.randrange(len(made.body) + 1)
    return made._replace(body=made.body[:at] + draw.choice(TOKENS) + made.body[at:])


def _cut(made: Case, draw: random.Random) -> Case:
    return made._replace(body=made.body[: draw.randrange(len(made.body) + 1)])


def _header(made: Case, draw: random.Random) -> Case:
    """One header more, less, or with another value."""
    headers = list(made.headers)
    at = draw.randrange(len(headers) or 1)
    value = draw.choice([*STRINGS, *URLS])
    name = draw.choice(
        ["ce-id", "ce-source", "ce-type", "ce-time", "ce-subject", "ce-traceparent", "ce-data", "ce-x_y", "ce-"]
    )
    match draw.randrange(3):
        case 0 if headers:
            del headers[at]
        case 1 if headers:
            headers[at] = (headers[at][0], value)
        case _:
            headers.insert(at, (name, value))
    return made._replace(headers=headers)


def _kind(made: Case, draw: random.Random) -> Case:
    others = [(name, value) for name, value in made.headers if name.lower() != "content-type"]
    return made._replace(headers=[*others, ("Content-Type", draw.choice(CONTENT_TYPES))])


_DAMAGES: tuple[Callable[[Case, random.Random], Case], ...] = (_flip, _slice, _insert, _cut, _header, _kind)
