"""From the parts of an HTTP request to events: mode by Content-Type, attributes decoded, everything wrong at once."""

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.errors import Problem
from builder.events.parsing import (
    BATCH_TYPE,
    MAX_BATCH,
    STRUCTURED_TYPE,
    Item,
    Mode,
    Parsed,
    Rejected,
    is_json,
    parse_http,
)
from builder.models import Event

MINIMUM = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}
MINIMUM_EVENT = Event("1", "/s", "t", None, None, {}, b"{}")
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

WANTED = "application/json with ce- headers, application/cloudevents+json or application/cloudevents-batch+json"


def missing(*names: str) -> tuple[Problem, ...]:
    return tuple(Problem(name, "is missing; every CloudEvent has one") for name in names)


def binary(*headers: tuple[str, str], data: bytes = b"{}", content_type: str | None = "application/json") -> Item:
    """One binary request with the minimum and these headers."""
    minimum = [(f"ce-{name}", value) for name, value in MINIMUM.items()]
    (item,) = parse_http(content_type, [*minimum, *headers], data).items
    return item


def structured(**members: object) -> Item:
    """One structured request with the minimum and these members."""
    (item,) = parse_http(STRUCTURED_TYPE, [], json.dumps({**MINIMUM, "data": {}, **members}).encode()).items
    return item


def problems(item: Item) -> tuple[Problem, ...]:
    assert isinstance(item, Rejected)
    return item.problems


def attribute(item: Item, name: str) -> str:
    assert isinstance(item, Event)
    return item.extensions[name]


class TestTheExample:
    """004-R16: the event as printed is accepted whole, in every mode."""

    def test_binary(self, example: dict[str, Any], event: Event) -> None:
        """As Knative's dispatcher sends it."""
        body = json.dumps(example.pop("data"), separators=(",", ":")).encode()
        content_type = example.pop("datacontenttype")
        headers = [(f"Ce-{name.capitalize()}", value) for name, value in example.items()]
        assert parse_http(content_type, headers, body) == Parsed(Mode.BINARY, [event])

    def test_structured(self, example: dict[str, Any], event: Event) -> None:
        """As 004 prints it."""
        body = json.dumps(example, indent=2).encode()
        assert parse_http(STRUCTURED_TYPE, [], body) == Parsed(Mode.STRUCTURED, [event])

    def test_batch(self, example: dict[str, Any], event: Event) -> None:
        """Twice in one request: two events."""
        body = json.dumps([example, example]).encode()
        assert parse_http(BATCH_TYPE, [], body) == Parsed(Mode.BATCH, [event, event])


class TestContentType:
    """HTTP binding, section 3: Content-Type alone decides, whatever headers stand beside it."""

    @pytest.mark.parametrize(
        "content_type",
        [
            None,
            "",
            "application/json",
            "APPLICATION/JSON",
            "application/json; charset=utf-8",
            'application/json;charset="UTF-8"',
            "application/json; charset=utf8; x=y",
            "application/json;",
            "text/json",
            "application/vnd.example.build+json",
        ],
    )
    def test_json_is_binary(self, content_type: str | None) -> None:
        """JSON by any name, and no Content-Type: that is how Knative sends an event without datacontenttype."""
        assert binary(content_type=content_type) == MINIMUM_EVENT

    @pytest.mark.parametrize(
        "content_type",
        [
            STRUCTURED_TYPE,
            "Application/CloudEvents+JSON",
            "application/cloudevents+json; charset=utf-8",
            "application/cloudevents+json ; a=b",
        ],
    )
    def test_a_cloudevents_type_is_structured(self, content_type: str) -> None:
        """A stray ce- header, even a contradicting one, changes nothing."""
        body = json.dumps({**MINIMUM, "data": {}}).encode()
        assert parse_http(content_type, [("ce-id", "other")], body) == Parsed(Mode.STRUCTURED, [MINIMUM_EVENT])

    @pytest.mark.parametrize(
        ("content_type", "mode"),
        [
            ("text/plain", Mode.BINARY),
            ("application/xml", Mode.BINARY),
            ("application/x-www-form-urlencoded", Mode.BINARY),
            ("application/jsonx", Mode.BINARY),
            ("json", Mode.BINARY),
            ("application/json,text/plain", Mode.BINARY),
            ("application/cloudevents", Mode.STRUCTURED),
            ("application/cloudevents+xml", Mode.STRUCTURED),
            ("application/cloudevents+avro", Mode.STRUCTURED),
            ("application/cloudevents-batch+xml", Mode.STRUCTURED),
        ],
    )
    def test_any_other_type_is_415(self, content_type: str, mode: Mode) -> None:
        """The answer names what is taken."""
        headers = [(f"ce-{name}", value) for name, value in MINIMUM.items()]
        parsed = parse_http(content_type, headers, b"<x/>")
        problem = Problem("Content-Type", f'"{content_type}" is not taken; send {WANTED}')
        attributes = MINIMUM if mode is Mode.BINARY else {}
        assert parsed == Parsed(mode, [Rejected(attributes, content_type, b"<x/>", (problem,), 415)])

    @pytest.mark.parametrize(
        "content_type",
        [
            "application/json; charset=utf-16",
            'application/cloudevents+json; charset="iso-8859-1"',
            "application/cloudevents-batch+json;charset=latin1",
        ],
    )
    def test_another_charset_is_415(self, content_type: str) -> None:
        """JSON between programs is UTF-8 (RFC 8259, section 8.1)."""
        (item,) = parse_http(content_type, [], b"{}").items
        assert isinstance(item, Rejected)
        assert Problem("Content-Type", "must not name a charset other than utf-8") in item.problems
        assert item.status == 415


class TestBinary:
    """HTTP binding, section 3.1."""

    def test_header_names_are_of_any_case(self) -> None:
        """HTTP/2 lowers them, Go capitalises them."""
        headers = [("CE-SPECVERSION", "1.0"), ("Ce-Id", "1"), ("ce-source", "/s"), ("cE-tYpE", "t")]
        assert parse_http(None, headers, b"{}").items == [MINIMUM_EVENT]

    def test_other_headers_are_none_of_its_business(self) -> None:
        """Neither those of HTTP nor ce-datacontenttype, which Content-Type says (section 3.1.1)."""
        headers = [("Host", "x"), ("Cert", "x"), ("ce-datacontenttype", "text/plain"), ("Content-Type", "x")]
        assert binary(*headers) == MINIMUM_EVENT

    def test_an_ordinary_request_is_told_what_is_missing(self) -> None:
        """Somebody's curl with JSON and nothing else."""
        what = f"neither ce- headers nor a CloudEvents content type are there; send {WANTED}"
        expected = (Problem("", what), *missing("specversion", "id", "source", "type"))
        assert parse_http("application/json", [("Accept", "*/*")], b'{"id": "1"}') == Parsed(
            Mode.BINARY, [Rejected({}, "application/json", b'{"id": "1"}', expected)]
        )

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            ("plain", "plain"),
            ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
            ("Euro%20%e2%82%ac", "Euro €"),
            ("Grüße €", "Grüße €"),
            ("Grüße%20€", "Grüße €"),
            ("%41%42", "AB"),
            ("100%", "100%"),
            ("%zz%2", "%zz%2"),
            ("%2541", "%41"),
            ('"quoted"', "quoted"),
            ('"a \\"b\\" \\\\c"', 'a "b" \\c'),
            ('"a%20b"', "a b"),
            ('say "hi"', 'say "hi"'),
            ('"', '"'),
            ('"open', '"open'),
            ('""', ""),
            ("", ""),
        ],
    )
    def test_values_are_decoded_once(self, value: str, text: str) -> None:
        """Section 3.1.3.2: quotes off, one round of percent-decoding; Knative's raw UTF-8 passes."""
        assert attribute(binary(("ce-x", value)), "x") == text

    @pytest.mark.parametrize("value", ["%ff", "%C0%A0", "%ED%A0%80", "a\udcffb", "\udce2\udc82", "%E2%82"])
    def test_what_is_no_utf8_is_named(self, value: str) -> None:
        """Bytes that aiohttp cannot decode are half surrogates; overlong forms are invalid too."""
        item = binary(("Ce-Subject", value))
        assert problems(item) == (Problem("subject", "must be UTF-8: header ce-subject"),)

    def test_a_header_must_not_come_twice(self) -> None:
        """Which of two ids would be the event's?"""
        item = binary(("Ce-Id", "2"))
        assert problems(item) == (Problem("id", "must not be sent twice: header ce-id"),)

    def test_decoded_control_characters_are_refused(self) -> None:
        """Percent-encoding is no way round the rules for attributes."""
        item = binary(("ce-subject", "a%0D%0Ab%00"))
        assert [problem.field for problem in problems(item)] == ["subject"]

    def test_everything_wrong_is_in_one_answer(self) -> None:
        """A sender is not made to find its mistakes one request at a time."""
        headers = [("ce-id", ""), ("ce-source", "a b"), ("ce-time", "now"), ("ce-X_y", "1"), ("ce-z", "%ff")]
        (item,) = parse_http("text/plain", headers, b"hello").items
        assert isinstance(item, Rejected)
        assert [problem.field for problem in item.problems] == [
            "z",
            "Content-Type",
            "specversion",
            "id",
            "type",
            "source",
            "time",
            "x_y",
        ]
        assert item.status == 415

    def test_what_could_be_read_is_kept(self) -> None:
        """The dead letter of a rejected event shows its attributes, cut and printable, and its very bytes."""
        long = "x" * 5000
        headers = [("ce-id", "7"), ("ce-type", long), ("ce-subject", "a\udcff"), ("ce-\udcff", "1"), ("ce-a b", "2")]
        (item,) = parse_http(None, headers, b"\xff").items
        assert isinstance(item, Rejected)
        assert item.attributes == {"id": "7", "type": "x" * 1024, "subject": "a?"}
        assert item.body == b"\xff"
        json.dumps(dict(item.attributes)).encode()

    def test_data_is_passed_on_untouched(self) -> None:
        """Whether it is JSON is found where it is read, with the place in it."""
        item = binary(data=b" {broken\xff")
        assert isinstance(item, Event)
        assert item.data == b" {broken\xff"

    def test_too_many_attributes(self) -> None:
        """No event needs them, and each would live in memory with it."""
        item = binary(*((f"ce-a{number}", "x") for number in range(100)))
        assert problems(item) == (Problem("ce-", "must not be more than 64 headers"),)


class TestStructured:
    """JSON format, sections 2 and 3."""

    def test_optional_attributes_and_extensions(self) -> None:
        """Canonical text for every type that an attribute may have; null is as if it were not there."""
        assert structured(
            subject="s",
            time="2024-01-01T00:00:00Z",
            dataschema=None,
            a="text",
            b=True,
            c=False,
            d=-5,
            e=None,
            datacontenttype="application/vnd.x+json",
        ) == Event(
            "1",
            "/s",
            "t",
            "s",
            datetime(2024, 1, 1, tzinfo=UTC),
            {"a": "text", "b": "true", "c": "false", "d": "-5"},
            b"{}",
        )

    @pytest.mark.parametrize(
        "data",
        [{"a": [1, 1.5, -0.1, 1e300, True, None, "ü😀\u2028\0"]}, [], "text", 0, 9007199254740993, False, None, ""],
    )
    def test_data_keeps_its_meaning(self, data: object) -> None:
        """Any JSON value; what it should have been is for the one who reads it."""
        item = structured(data=data)
        assert isinstance(item, Event)
        assert json.loads(item.data) == data

    def test_no_data_is_no_bytes(self) -> None:
        """An event without data is an event."""
        (item,) = parse_http(STRUCTURED_TYPE, [], json.dumps(MINIMUM).encode()).items
        assert item == Event("1", "/s", "t", None, None, {}, b"")

    def test_base64(self) -> None:
        """Section 3.1.1: the data's bytes, untouched; a null beside it is nothing."""
        item = structured(data=None, data_base64=base64.b64encode(b'{"a": 1}').decode())
        assert isinstance(item, Event)
        assert item.data == b'{"a": 1}'

    @pytest.mark.parametrize("name", ["id", "source", "type", "specversion"])
    def test_required_attributes(self, name: str) -> None:
        """Missing and null are the same; a number is no id."""
        assert problems(structured(**{name: None})) == missing(name)
        assert problems(structured(**{name: 1})) == (Problem(name, "must be a string"),)
        assert problems(structured(**{name: ""}))[0].field == name

    @pytest.mark.parametrize(
        ("members", "problem"),
        [
            ({"time": 1704067200}, Problem("time", "must be a string")),
            ({"x": 1.5}, Problem("x", "must be a string, a boolean or a whole number")),
            ({"x": {}}, Problem("x", "must be a string, a boolean or a whole number")),
            ({"x": []}, Problem("x", "must be a string, a boolean or a whole number")),
            (
                {"correlationId": "x"},
                Problem("correlationId", "is no attribute name: 1 to 64 lower-case letters and digits"),
            ),
            ({"a b\n": "x"}, Problem('"a b\\n"', "is no attribute name: 1 to 64 lower-case letters and digits")),
            ({"data_base64": "e30="}, Problem("data_base64", "must not stand beside data")),
            ({"data": None, "data_base64": "e30"}, Problem("data_base64", "must be base64 (RFC 4648, section 4)")),
            ({"data": None, "data_base64": "e3 0="}, Problem("data_base64", "must be base64 (RFC 4648, section 4)")),
            ({"data": None, "data_base64": "_-=="}, Problem("data_base64", "must be base64 (RFC 4648, section 4)")),
            ({"data": None, "data_base64": "ü"}, Problem("data_base64", "must be base64 (RFC 4648, section 4)")),
            ({"data": None, "data_base64": {}}, Problem("data_base64", "must be a string")),
        ],
    )
    def test_a_wrong_member_is_named(self, members: dict[str, object], problem: Problem) -> None:
        """One wrong member, one problem under its name."""
        assert problems(structured(**members)) == (problem,)

    @pytest.mark.parametrize("content_type", ["text/plain", "application/xml", "", "application/cloudevents"])
    def test_data_that_is_no_json_is_415(self, content_type: str) -> None:
        """A valid CloudEvent of a kind that we do not read; beside other faults it is a 400."""
        item = structured(datacontenttype=content_type)
        assert isinstance(item, Rejected)
        assert item.problems == (Problem("datacontenttype", f'"{content_type}" is not taken; the data must be JSON'),)
        assert item.status == 415
        worse = structured(datacontenttype=content_type, id="")
        assert isinstance(worse, Rejected)
        assert [problem.field for problem in worse.problems] == ["id", "datacontenttype"]
        assert worse.status == 400

    @pytest.mark.parametrize(
        ("body", "problem"),
        [
            (b"", Problem("body", "is empty; a JSON text is wanted")),
            (b"[]", Problem("body", "must be a JSON object: a CloudEvent")),
            (b"null", Problem("body", "must be a JSON object: a CloudEvent")),
            (b'"x"', Problem("body", "must be a JSON object: a CloudEvent")),
            (b"{", Problem("body", "is not JSON: EOF while parsing an object, at line 1 column 1")),
            (
                b'{"id":"1","id":"2"}',
                Problem("body", 'is JSON with the key "id" twice in one object, at line 1 column 16'),
            ),
            (b"\xff", Problem("body", "is not JSON: expected value, at line 1 column 1")),
        ],
    )
    def test_a_body_that_is_no_event(self, body: bytes, problem: Problem) -> None:
        """Nothing of it can be read, and its bytes are kept."""
        (item,) = parse_http(STRUCTURED_TYPE, [], body).items
        assert item == Rejected({}, STRUCTURED_TYPE, body, (problem,))

    def test_what_could_be_read_is_kept(self) -> None:
        """The whole event as it came, for what is wrong may be anywhere in it."""
        body = json.dumps({**MINIMUM, "id": 5, "a_b": "x", "n": 3, "data": {}}).encode()
        (item,) = parse_http(STRUCTURED_TYPE, [], body).items
        assert isinstance(item, Rejected)
        assert item.attributes == {"specversion": "1.0", "source": "/s", "type": "t", "n": "3"}
        assert (item.content_type, item.body) == (STRUCTURED_TYPE, body)

    def test_a_number_that_no_program_can_hold(self) -> None:
        """1e400 is JSON, but what it means is lost by everybody; it must not become ``Infinity`` on the way."""
        body = json.dumps({**MINIMUM, "data": "N"}).replace('"N"', "1e400").encode()
        (item,) = parse_http(STRUCTURED_TYPE, [], body).items
        assert problems(item)[0].field == "data"

    def test_many_members_are_one_problem(self) -> None:
        """An answer is never larger than the request that asked for it."""
        item = structured(**{f"BAD{number}": number for number in range(1000)})
        assert problems(item) == (Problem("body", "must not have more than 64 attributes"),)


class TestBatch:
    """JSON format, section 4: each element stands for itself."""

    def test_good_and_bad_side_by_side(self) -> None:
        """A bad element costs its neighbours nothing and is kept as JSON of its own."""
        body = json.dumps([{**MINIMUM, "data": {}}, 5, {"id": "ü"}, {**MINIMUM, "id": "2", "data": {}}]).encode()
        assert parse_http(BATCH_TYPE, [], body) == Parsed(
            Mode.BATCH,
            [
                MINIMUM_EVENT,
                Rejected({}, STRUCTURED_TYPE, b"5", (Problem("body", "must be a JSON object: a CloudEvent"),)),
                Rejected(
                    {"id": "ü"},
                    STRUCTURED_TYPE,
                    '{"id":"ü"}'.encode(),
                    missing("specversion", "source", "type"),
                    data=b"",
                ),
                Event("2", "/s", "t", None, None, {}, b"{}"),
            ],
        )

    def test_an_empty_batch_is_a_batch(self) -> None:
        """There is nothing to do, and nothing wrong."""
        assert parse_http(BATCH_TYPE, [], b"[]") == Parsed(Mode.BATCH, [])

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            (b"{}", "must be a JSON array of events"),
            (b"1", "must be a JSON array of events"),
            (b"[", "is not JSON: EOF while parsing a list, at line 1 column 1"),
            (b"[" + b",".join([b"{}"] * (MAX_BATCH + 1)) + b"]", "must not hold more than 1000 events"),
        ],
        ids=["object", "number", "broken", "long"],
    )
    def test_a_body_that_is_no_batch(self, body: bytes, message: str) -> None:
        """One answer for the whole, not one for each of a million."""
        assert parse_http(BATCH_TYPE, [], body) == Parsed(
            Mode.BATCH, [Rejected({}, BATCH_TYPE, body, (Problem("body", message),))]
        )


class TestTrace:
    """https://www.w3.org/TR/trace-context and the CloudEvents extension of the same name."""

    def test_the_header_becomes_the_extension(self) -> None:
        """In every mode, so that the trace reaches the Job."""
        expected = Event("1", "/s", "t", None, None, {"traceparent": TRACE}, b"{}")
        element = json.dumps({**MINIMUM, "data": {}}).encode()
        assert binary(("Traceparent", TRACE)) == expected
        assert parse_http(STRUCTURED_TYPE, [("traceparent", TRACE)], element).items == [expected]
        assert parse_http(BATCH_TYPE, [("traceparent", TRACE)], b"[" + element + b"]").items == [expected]

    def test_the_events_own_wins(self) -> None:
        """It is where the trace began; the header is only the last hop."""
        other = TRACE.replace("4bf9", "aaaa")
        assert attribute(binary(("traceparent", TRACE), ("ce-traceparent", other)), "traceparent") == other

    @pytest.mark.parametrize("value", ["", "x", TRACE.upper(), f"{TRACE}-more", "\udcff"])
    def test_a_broken_one_is_dropped(self, value: str) -> None:
        """A proxy's mistake is not the event's."""
        assert binary(("traceparent", value)) == MINIMUM_EVENT


@pytest.mark.parametrize(
    ("item", "data"),
    [
        (binary(("ce-subject", "")), b"{}"),
        (binary(("ce-subject", ""), content_type="text/plain"), None),
        (structured(subject="", data={"a": 1}), b'{"a":1}'),
        (structured(subject="", data=None, data_base64="e30="), b"{}"),
        (structured(subject="", data_base64="e30="), None),
        (structured(subject="", datacontenttype="text/plain"), None),
        (parse_http(STRUCTURED_TYPE, [], b"[]").items[0], None),
        (parse_http("application/json", [], b"{}").items[0], None),
    ],
)
def test_the_data_of_a_rejected_event(item: Item, data: bytes | None) -> None:
    """It can be looked at as well, where it could be read and is JSON as far as the event says."""
    assert isinstance(item, Rejected)
    assert item.data == data


@pytest.mark.parametrize("text", ["application/json", "a/b+json", "TEXT/JSON ; x"])
def test_is_json(text: str) -> None:
    """The same reading for Content-Type and datacontenttype."""
    assert is_json(text)


def sound(parsed: Parsed) -> None:
    """What holds of every result: nothing in it can break the one who stores or prints it."""
    for item in parsed.items:
        if isinstance(item, Event):
            assert item.id
            assert item.source
            assert item.type
            assert len(item.identity) == 16
        else:
            assert item.problems
            assert item.status in {400, 415}
            assert all(str(problem).isprintable() for problem in item.problems)
            json.dumps(
                [item.content_type, dict(item.attributes), *map(str, item.problems)], ensure_ascii=False
            ).encode()


header_names = st.sampled_from(["ce-id", "ce-source", "ce-type", "ce-specversion", "ce-time", "traceparent"]) | st.text(
    max_size=20
).map(lambda name: f"ce-{name}")
header_values = st.sampled_from(["1.0", "x", '"', "%", "%ff", '"\\"', "\udcff"]) | st.text(max_size=20)
content_types = st.text() | st.sampled_from(
    [None, "application/json", STRUCTURED_TYPE, BATCH_TYPE, "text/plain", f"{STRUCTURED_TYPE};\udcff", "\udcff/x"]
)


@given(content_types, st.lists(st.tuples(header_names, header_values), max_size=12), st.binary())
def test_no_request_breaks_it(content_type: str | None, headers: list[tuple[str, str]], body: bytes) -> None:
    """Any request is events or rejections: the function has no other way to end."""
    sound(parse_http(content_type, headers, body))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
json_events = st.dictionaries(
    st.sampled_from([*MINIMUM, "data", "data_base64", "time", "subject", "datacontenttype", "x"]) | st.text(),
    st.sampled_from(["1.0", "application/json", "e30="]) | json_values,
)


@given(st.sampled_from([STRUCTURED_TYPE, BATCH_TYPE]), json_events | st.lists(json_events, max_size=3) | json_values)
def test_no_json_breaks_it(content_type: str, value: object) -> None:
    """Likewise for JSON that is nearly an event."""
    sound(parse_http(content_type, [], json.dumps(value).encode("utf-8", "surrogatepass")))
