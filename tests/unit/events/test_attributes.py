"""What the attributes of a CloudEvent may be (CloudEvents 1.0.2, Context Attributes and Type System)."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.events.attributes import MAX_VALUE, is_traceparent, parse_time, read_event
from builder.models import Event

MINIMUM = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}

NO_CONTROLS = "must not hold control characters, half surrogates or Unicode noncharacters"
NO_URI = 'must be a URI reference: no spaces and none of < > " { } | \\ ^ `'
NO_SCHEMA = "must be an absolute URI, such as https://example.com/schema/v1"
NO_TIME = "must be an RFC 3339 timestamp with offset, such as 2024-01-01T00:00:00Z"
NO_NAME = "is no attribute name: 1 to 64 lower-case letters and digits"
TOO_LONG = "must have at most 1024 characters"


def read(**changes: str) -> tuple[Event | None, dict[str, str]]:
    found: dict[str, str] = {}
    return read_event({**MINIMUM, **changes}, b"{}", found), found


def test_the_four_required_ones_are_enough() -> None:
    """The smallest event; nothing is invented for what is not there."""
    assert read() == (Event("1", "/s", "t", None, None, {}, b"{}"), {})


def test_all_of_them() -> None:
    """What is optional is kept, but for what nobody needs (dataschema)."""
    event, found = read(
        subject="Grüße %20",
        time="2024-01-01T00:00:00+01:00",
        dataschema="urn:x",
        correlationid="c",
        empty="",
        a1="ü" * MAX_VALUE,
    )
    assert found == {}
    assert event == Event(
        "1",
        "/s",
        "t",
        "Grüße %20",
        datetime(2023, 12, 31, 23, tzinfo=UTC),
        {"correlationid": "c", "empty": "", "a1": "ü" * MAX_VALUE},
        b"{}",
    )


def test_every_missing_attribute_is_named() -> None:
    """An event without id cannot be told from its redelivery, so none is made up."""
    found: dict[str, str] = {}
    assert read_event({}, b"", found) is None
    assert found == dict.fromkeys(("specversion", "id", "source", "type"), "is missing; every CloudEvent has one")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("id", "", "must not be empty"),
        ("source", "", "must not be empty"),
        ("type", "", "must not be empty"),
        ("specversion", "", "must not be empty"),
        ("specversion", "0.3", "must be 1.0"),
        ("specversion", "1", "must be 1.0"),
        ("specversion", "1.0.2", "must be 1.0"),
        ("subject", "", "must not be empty; leave it out"),
        ("id", "a\0b", NO_CONTROLS),
        ("id", "a\r\nb", NO_CONTROLS),
        ("type", "a\x7f", NO_CONTROLS),
        ("subject", "\x85", NO_CONTROLS),
        ("subject", "\ud800", NO_CONTROLS),
        ("subject", "\ufdd0", NO_CONTROLS),
        ("subject", "\uffff", NO_CONTROLS),
        ("subject", "\U0010fffe", NO_CONTROLS),
        ("comexample", "a\nb", NO_CONTROLS),
        ("id", "x" * (MAX_VALUE + 1), TOO_LONG),
        ("comexample", "x" * (MAX_VALUE + 1), TOO_LONG),
        ("source", "a b", NO_URI),
        ("source", "a\tb", NO_URI),
        ("source", "a\u00a0b", NO_URI),
        ("source", "<a>", NO_URI),
        ("source", "{a}", NO_URI),
        ("source", "a|b\\c^d`e", NO_URI),
        ("dataschema", "", NO_SCHEMA),
        ("dataschema", "/relative", NO_SCHEMA),
        ("dataschema", "https://x y", NO_SCHEMA),
        ("time", "yesterday", NO_TIME),
        ("Upper", "x", NO_NAME),
        ("a_b", "x", NO_NAME),
        ("ünder", "x", NO_NAME),
        ("a" * 65, "x", NO_NAME),
        ("", "x", NO_NAME),
        ("data", "x", "is the event's content and no attribute"),
    ],
)
def test_a_wrong_attribute_is_named(name: str, value: str, message: str) -> None:
    """One wrong attribute, one problem under its name, no event."""
    event, found = read(**{name: value})
    assert event is None
    assert list(found.values()) == [message]
    if name.isidentifier() and len(name) <= 64 and name.isascii():
        assert list(found) == [name]


@pytest.mark.parametrize("source", ["x", "/a/b?c#d", "urn:uuid:1", "https://müller.example/%C3%BC", "//host/a'b(c)"])
def test_a_source_is_any_uri_reference(source: str) -> None:
    """Relative ones too, which Knative's own sources send, and raw UTF-8."""
    event, _ = read(source=source)
    assert event is not None
    assert event.source == source


def test_an_earlier_finding_means_no_event() -> None:
    """What could not even be decoded is not hidden by attributes that are fine."""
    found = {"id": "must be UTF-8"}
    assert read_event(MINIMUM, b"{}", found) is None
    assert found == {"id": "must be UTF-8"}


def test_source_and_type_are_shared() -> None:
    """A long queue holds one copy of the strings that are the same on every event."""
    one, _ = read(source=b"/shared".decode())
    two, _ = read(source=b"/shared".decode())
    assert one is not None
    assert two is not None
    assert one.source is two.source


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2024-01-01T00:00:00Z", datetime(2024, 1, 1, tzinfo=UTC)),
        ("2024-01-01t00:00:00z", datetime(2024, 1, 1, tzinfo=UTC)),
        ("2024-01-01T00:00:00.5Z", datetime(2024, 1, 1, 0, 0, 0, 500_000, tzinfo=UTC)),
        ("2024-01-01T00:00:00.123456789Z", datetime(2024, 1, 1, 0, 0, 0, 123_456, tzinfo=UTC)),
        ("2024-01-01T00:00:00-00:00", datetime(2024, 1, 1, tzinfo=UTC)),
        ("2024-01-01T05:30:00+05:30", datetime(2024, 1, 1, tzinfo=UTC)),
        ("2016-12-31T23:59:60Z", datetime(2017, 1, 1, tzinfo=UTC)),
        ("2017-01-01T00:59:60.25+01:00", datetime(2017, 1, 1, 0, 0, 0, 250_000, tzinfo=UTC)),
    ],
)
def test_time_is_rfc_3339(text: str, moment: datetime) -> None:
    """Every form of section 5.6, finer than a microsecond cut, a leap second as the next minute."""
    assert parse_time(text) == moment
    assert parse_time(text).tzinfo is UTC


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2024-01-01",
        "2024-01-01T00:00:00",
        "2024-01-01 00:00:00Z",
        "2024-01-01T00:00Z",
        "20240101T000000Z",
        "2024-01-01T00:00:00,5Z",
        "2024-01-01T00:00:00.Z",
        "2024-01-01T00:00:00+0100",
        "2024-01-01T00:00:00+01",
        "2024-01-01T00:00:00+24:00",
        "2024-01-01T00:00:00+01:60",
        "2024-01-01T24:00:00Z",
        "2024-01-01T00:00:61Z",
        "2024-02-30T00:00:00Z",
        "2024-13-01T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:60Z",
        "\uff19999-01-01T00:00:00Z",
        " 2024-01-01T00:00:00Z",
        "2024-01-01T00:00:00Z\n",
        "2024-01-01T00:00:00." + "1" * 5000 + "Z",
        "1704067200",
    ],
)
def test_no_other_time_is_taken(text: str) -> None:
    """A time without offset is another time elsewhere; dates that do not exist are no crash."""
    with pytest.raises(ValueError, match="must be an RFC 3339 timestamp"):
        parse_time(text)


@given(st.datetimes(timezones=st.timezones()))
def test_every_moment_survives(moment: datetime) -> None:
    """Whatever Python can write as RFC 3339 is read as the same moment."""
    try:
        expected = moment.astimezone(UTC)
    except OverflowError:
        return
    text = moment.isoformat()
    if moment.utcoffset() is not None and len(text) - text.rindex(":") == 3:
        try:
            assert parse_time(text) == expected
        except ValueError:
            assert text[-6] not in "+-"  # an offset with seconds, which RFC 3339 has not


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", True),
        ("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", True),
        ("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", False),
        ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", False),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", False),
        ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", False),
        ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\n", False),
        ("", False),
    ],
)
def test_traceparent_is_w3cs(text: str, valid: bool) -> None:  # noqa: FBT001 -- a table's column
    """A broken header is dropped, so it must be told from a good one."""
    assert is_traceparent(text) is valid
