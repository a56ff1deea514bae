"""The short way: 004's own events go it, and whatever goes it would have come to the same end the long way."""

import copy
import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.build_settings import Build
from builder.errors import EventRejected
from builder.events.parsing import parse_http
from builder.events.plain import plain_event, plain_request
from builder.events.request import look_closely
from builder.models import BuildRequest, BuildType, Event
from builder.settings import Intake
from tests import building

BUILD = Build()
INTAKE = Intake()
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
HEADERS = {
    f"ce-{name}": value for name, value in building.EXAMPLE.items() if name not in {"data", "datacontenttype"}
} | {"host": "builder", "content-type": "application/json"}
DATA = building.EXAMPLE["data"]


def with_data(text: bytes) -> Event:
    return building.event()._replace(data=text)


def both_ways(text: bytes, intake: Intake = INTAKE) -> tuple[BuildRequest | None, BuildRequest | None]:
    """What the short and the long way make of a data; None of the long way is a rejection."""
    event = with_data(text)
    plain = plain_request(event, building.NOON, BUILD, intake)
    try:
        return plain, look_closely(event, building.NOON, BUILD, intake)
    except EventRejected:
        return plain, None


def changed(path: str, value: Any) -> bytes:
    """004's data with one member that is other, or not there for ``...``."""
    data = copy.deepcopy(DATA)
    inner = data
    *above, last = path.split(".")
    for name in above:
        inner = inner[name]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return json.dumps(data, ensure_ascii=False).encode()


# --- the event --------------------------------------------------------------------------------------------------------


def test_the_example_is_plain() -> None:
    """004's own event takes the short way, with and without a trace."""
    assert plain_event(HEADERS, b"{}") == parse_http(None, HEADERS.items(), b"{}").items[0]
    traced = HEADERS | {"traceparent": TRACE}
    event = plain_event(traced, b"{}")
    assert event is not None
    assert event == parse_http(None, traced.items(), b"{}").items[0]
    assert event.extensions == {"traceparent": TRACE}


NAMES = st.sampled_from(
    [*HEADERS, "ce-dataschema", "ce-datacontenttype", "ce-data", "ce-traceparent", "ce-partitionkey", "ce-a-b", "ce-",
     "traceparent", "accept"]
)  # fmt: skip
VALUES = st.sampled_from(
    ["", "1.0", "x", "a b", "a%20b", '"x"', "ü", "https://e.example/a", "2024-01-01T00:00:00Z", "2024-02-31T00:00:00Z",
     "2024-01-01T00:00:60+01:00", TRACE, TRACE.upper(), "x" * 1024, "x" * 1025, "a\tb", "\x7f", "<", "\udcff"]
) | st.text(max_size=8)  # fmt: skip


@given(st.dictionaries(NAMES, VALUES, max_size=4), st.sets(st.sampled_from(sorted(HEADERS)), max_size=2))
def test_an_event_is_the_same_both_ways(other: dict[str, str], missing: set[str]) -> None:
    """Whatever stands in the headers: the short way gives up, or its event is the long way's."""
    headers = {name: value for name, value in HEADERS.items() if name not in missing} | other
    event = plain_event(headers, b"{}")
    assert event is None or [event] == parse_http(None, headers.items(), b"{}").items


# --- the request ------------------------------------------------------------------------------------------------------


def test_the_examples_request_is_plain() -> None:
    """All of 004's data takes the short way, and comes to its own values."""
    plain, closely = both_ways(json.dumps(DATA).encode())
    assert plain == closely
    assert plain is not None
    assert (plain.build_type, plain.runtime, plain.priority) == (BuildType.CONTAINER, "nodejs18", 1)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("correlation_id", ...),
        ("job_name", ...),
        ("priority", ...),
        ("priority", 10),
        ("parameters.priority", ...),
        ("parameters.build_type", ...),
        ("parameters.build_type", "function"),
        ("parameters.build_timeout", ...),
        ("parameters.environment", ...),
        ("parameters.environment", {"DATABASE_URL": "postgres://u:p@h:1/d", "NAME": "ü"}),
        ("parameters.ref", "main"),
        ("parameters.ref", "0" * 40),
        ("parameters.source_url", "https://github.com/o/r.git"),
        ("parameters.source_url", "https://github.com/o/r/tree"),
    ],
)
def test_what_else_is_plain(path: str, value: Any) -> None:
    """What senders leave out or write otherwise comes to the same request both ways."""
    plain, closely = both_ways(changed(path, value))
    assert plain is not None
    assert plain == closely


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("third_party_id", "a..b"),
        ("third_party_id", ...),
        ("parameters", None),
        ("parameters.ref", "refs"),
        ("parameters.ref", "A" * 40),
        ("parameters.ref", "feature/x"),
        ("parameters.ref", None),
        ("parameters.runtime", "cobol"),
        ("parameters.build_timeout", 7201),
        ("parameters.build_timeout", True),
        ("parameters.source_url", "https://169.254.169.254/o/r"),
        ("parameters.source_url", "https://git.example.com/o/r"),
        ("parameters.source_url", "https://github.com/o/r.tar.gz"),
        ("parameters.source_url", "https://github.com/o/../r"),
        ("parameters.source_url", "https://github.com/o/r\n"),
        ("parameters.environment", {"RUNTIME": "x"}),
        ("parameters.environment", {"BUILDKIT_SYNTAX": "x"}),
        ("parameters.environment", {"A": "x" * 2**14}),
        ("parameters.environment", {"A": "\\"}),
        ("more", 1),
    ],
)
def test_what_is_looked_at_closely(path: str, value: Any) -> None:
    """What has a rule of its own is the long way's, whether it is good or bad."""
    assert plain_request(with_data(changed(path, value)), building.NOON, BUILD, INTAKE) is None


@pytest.mark.parametrize(
    "twice",
    ['"priority" :2,', '"parser_id": "other",', '"parameters":{},', '"parameters": {"environment": {"A": "a:b"}},'],
)
def test_a_key_that_stands_twice_is_never_plain(twice: str) -> None:
    """The parser of the short way would keep one and say nothing."""
    text = json.dumps(DATA)
    assert both_ways(f"{text[0]}{twice}{text[1:]}".encode()) == (None, None)
    inner = text.replace('"NODE_ENV":', '"NODE_ENV": "::", "NODE_ENV":')
    assert both_ways(inner.encode()) == (None, None)


def test_hosts_that_are_allowed() -> None:
    """Where the setting names hosts, others are not plain."""
    text = json.dumps(DATA).encode()
    plain, closely = both_ways(text, Intake(allowed_source_hosts=("github.com",)))
    assert plain is not None
    assert plain == closely
    assert both_ways(text, Intake(allowed_source_hosts=("git.example.com",))) == (None, None)


JUNK: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers(-1, 8000) | st.floats() | st.text(max_size=5) | st.just({}) | st.just([])
)
MEMBERS = {
    "third_party_id": st.just("acme") | JUNK,
    "parser_id": st.sampled_from(["p1", "a.b", "a..b", "", "x" * 101, "é"]),
    "correlation_id": st.sampled_from(["c-1", "-c", ""]) | JUNK,
    "job_name": st.sampled_from(["kaniko-job-x", "UP", "a.-b"]) | JUNK,
    "priority": st.integers(0, 11) | JUNK,
    "extra": JUNK,
}
PARAMETERS = {
    "priority": st.integers(0, 11) | JUNK,
    "build_type": st.sampled_from(["container", "function", "other"]) | JUNK,
    "runtime": st.sampled_from(["nodejs18", "python3.12", "python312", "", "a:b"]) | JUNK,
    "source_url": st.sampled_from(
        ["https://github.com/o/r", "https://github.com/o/r.git/x", "https://github.com/o", "https://github.com/o/r/a/b",
         "https://GitHub.com/o/r", "https://github.com/-o/r", "https://10.0.0.1/o/r", "https://codeberg.org/o/r/tree",
         "https://github.com/o/r.tgz", "https://github.com/o/.git", "s3://github.com/o/r", "https://github.com/o/r#x"]
    ),
    "build_timeout": st.integers(-1, 8000) | JUNK,
    "environment": st.dictionaries(
        st.sampled_from(["A", "_b1", "1A", "RUNTIME", "BUILDKIT_X", "A B", "Ä"]),
        st.sampled_from(["", "a:b", "::", "\0", "\\", '"', "ü", "line\nline"]) | JUNK,
        max_size=3,
    ),
    "ref": st.sampled_from(["main", "-x", "refs", "a" * 39, "a" * 40, "a" * 41, "A" * 40, "a" * 64, "g" * 40, ""]),
}  # fmt: skip
REQUIRED = {"third_party_id", "parser_id", "source_url"}


def documents(members: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    needed = {name: member for name, member in members.items() if name in REQUIRED}
    return st.fixed_dictionaries(needed, optional={name: members[name] for name in members.keys() - REQUIRED})


@given(
    documents(MEMBERS),
    documents(PARAMETERS) | JUNK,
    st.sampled_from([(",", ":"), (", ", ": "), (" ,\n", "\t:\r\n ")]),
    st.sampled_from(["utf-8", "ascii"]),
)
def test_a_request_is_the_same_both_ways(
    data: dict[str, Any], parameters: Any, separators: tuple[str, str], charset: str
) -> None:
    """Whatever stands in the data: the short way gives up, or its request is the long way's."""
    text = json.dumps(data | {"parameters": parameters}, ensure_ascii=charset == "ascii", separators=separators)
    plain, closely = both_ways(text.encode("utf-8", "surrogatepass"))
    assert plain is None or plain == closely


@given(st.data())
def test_bytes_that_are_hit(data: st.DataObject) -> None:
    """A byte of the example that is another, gone or there twice: never a request that the long way would not make."""
    text = json.dumps(DATA).encode()
    at = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(at, min(len(text), at + 60)))
    piece = data.draw(st.sampled_from([b"", b'"', b"\\", b":", b" ", b"\xff", b"9", text[at:end] * 2]))
    plain, closely = both_ways(text[:at] + piece + text[end:])
    assert plain is None or plain == closely


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(hours=1)])
def test_time_trace_and_correlation_of_the_event(ahead: timedelta) -> None:
    """What the data does not say comes from the event, as on the long way."""
    event = with_data(changed("correlation_id", ...))._replace(
        time=building.NOON + ahead, extensions={"traceparent": TRACE, "correlationid": "mine"}
    )
    request = plain_request(event, building.NOON, BUILD, INTAKE)
    assert request is not None
    assert request == look_closely(event, building.NOON, BUILD, INTAKE)
    assert (request.correlation_id, request.traceparent, request.requested_at) == ("mine", TRACE, building.NOON)
