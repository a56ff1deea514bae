"""The short way from a message to its event and to its build request, for what nearly all senders write.

A few looks at all attributes together, and one pass of pydantic's core over the data with narrow patterns, in the place
of one check after the other. What is not so plain is not wrong: ``parsing`` and ``request`` look at it closely, and
they alone say what is wrong with an event. Of whatever comes through here they would make the same; property tests
hold the two ways together.
"""

import sys
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any

from pydantic_core import CoreSchema, SchemaValidator, ValidationError, core_schema

from builder.build_settings import Build
from builder.events.attributes import MAX_VALUE, is_name, is_traceparent, is_uri_reference, parse_time
from builder.events.hosts import host_problem
from builder.events.job_start import DEFAULT_PRIORITY, ENGINE_VARIABLES, ID, JOB_NAME, RESERVED_VARIABLES
from builder.events.source_url import ARCHIVES
from builder.models import BuildRequest, BuildType, Event, Source, SourceKind, Target
from builder.settings import Intake

_MAX_DATA = 2**14
"""Bytes. In so few no variable is too large, and neither are all of them together."""

_PART = "[A-Za-z0-9_][A-Za-z0-9._-]*"
_URL = rf"^https://[a-z0-9.-]+/{_PART}/{_PART}(?:/{_PART})?$"
# A branch without dots and slashes that is too short to be a hash in capitals, or a commit's hash.
_REF = r"^(?:[A-Za-z0-9_][A-Za-z0-9_-]{0,38}|[0-9a-f]{40})$"
_HASH_LENGTH = 40
_GIT = SourceKind.GIT  # found once, see ``Flow``
BUILD_TYPES = {build_type.value: build_type for build_type in BuildType}
_ENGINE_VARIABLES = ENGINE_VARIABLES.encode()


_ODD_ATTRIBUTES = frozenset({"data", "datacontenttype", "dataschema"})


def plain_event(headers: Mapping[str, str], data: bytes) -> Event | None:
    """The event whose attributes stand in ``headers``; None of one that must be looked at closely.

    The names are in lower case. Its Content-Type has been found good.
    """
    attributes = {name: headers[header] for header, name in _attribute_headers(tuple(headers))}
    text = "".join(attributes.values())
    if len(text) > MAX_VALUE or not (text.isascii() and text.isprintable()) or "%" in text or '"' in text:
        return None
    take = attributes.pop
    version, event_id, source, event_type = (
        take("specversion", ""),
        take("id", ""),
        take("source", ""),
        take("type", ""),
    )
    subject, time = take("subject", None), take("time", None)
    if version != "1.0" or not event_id or not event_type or subject == "" or not is_uri_reference(source):
        return None
    if attributes and not (_ODD_ATTRIBUTES.isdisjoint(attributes) and all(map(is_name, attributes))):
        return None
    trace = headers.get("traceparent")
    if trace is not None and "traceparent" not in attributes and is_traceparent(trace):
        attributes["traceparent"] = trace
    try:
        moment = None if time is None else parse_time(time)
    except ValueError:
        return None
    # The same few sources and types on every event: one copy each for a long queue.
    return Event(event_id, sys.intern(source), sys.intern(event_type), subject, moment, attributes, data)


@lru_cache(maxsize=64)
def _attribute_headers(headers: tuple[str, ...]) -> list[tuple[str, str]]:
    """The names of those that are attributes, as headers and as attributes. A sender always has the same."""
    return [(header, header[3:]) for header in headers if header.startswith("ce-")]


def _validator() -> Callable[[bytes], dict[str, Any]]:
    """Of a JSON text: an object of known fields, each as it should be. Null is not plain."""
    an_id, priority = _text(ID, 100), _whole_number(1, 10)
    parameters = _object(
        {"source_url": _text(_URL, 512)},
        priority=priority,
        build_type=core_schema.literal_schema(list(BUILD_TYPES)),
        runtime=_text(),
        ref=_text(_REF),
        build_timeout=_whole_number(1),
        environment=core_schema.dict_schema(_text("^[A-Za-z_][A-Za-z0-9_]*$", 128), _text(), max_length=64),
    )
    data = _object(
        {"third_party_id": an_id, "parser_id": an_id, "parameters": parameters},
        correlation_id=an_id,
        job_name=_text(JOB_NAME, 253),
        priority=priority,
    )
    return SchemaValidator(data).validate_json


def _text(pattern: str | None = None, longest: int | None = None) -> CoreSchema:
    return core_schema.str_schema(strict=True, pattern=pattern, max_length=longest)


def _whole_number(least: int, most: int | None = None) -> CoreSchema:
    return core_schema.int_schema(strict=True, ge=least, le=most)


def _object(required: dict[str, CoreSchema], **optional: CoreSchema) -> CoreSchema:
    fields = {name: core_schema.typed_dict_field(schema, required=True) for name, schema in required.items()}
    fields |= {name: core_schema.typed_dict_field(schema, required=False) for name, schema in optional.items()}
    return core_schema.typed_dict_schema(fields, extra_behavior="forbid")


_validate = _validator()


def plain_request(event: Event, accepted_at: datetime, build: Build, intake: Intake) -> BuildRequest | None:
    """See ``build_request``; None of an event that must be looked at closely."""
    text = event.data
    if len(text) > _MAX_DATA or b"\\" in text:
        return None
    try:
        data = _validate(text)
    except ValidationError:
        return None
    get = data["parameters"].get
    environment: dict[str, str] = get("environment", {})
    runtime, build_timeout, inner_priority = get("runtime"), get("build_timeout"), get("priority")
    priority: int | None = data.get("priority", inner_priority)
    build_type = _build_type(get("build_type"), runtime)
    source = _source(get("source_url"), get("ref"), build.two_level_hosts, intake.allowed_source_hosts)
    if (
        source is None
        or build_type is None
        or not (runtime is None or runtime in build.runtimes)
        or not (build_timeout is None or build_timeout <= build.max_timeout)
        or (environment and (_ENGINE_VARIABLES in text or not RESERVED_VARIABLES.isdisjoint(environment)))
        or text.count(b":") != _colons(data, environment)
    ):
        return None
    return BuildRequest(
        event_id=event.id,
        event_source=event.source,
        requested_at=requested_at(event, accepted_at),
        target=Target(data["third_party_id"], data["parser_id"]),
        correlation_id=data.get("correlation_id") or correlation_id(event),
        job_name=data.get("job_name"),
        priority=DEFAULT_PRIORITY if priority is None else priority,
        build_type=build_type,
        runtime=runtime,
        source=source,
        dockerfile=None,
        build_timeout=int(build.default_timeout) if build_timeout is None else build_timeout,
        environment=environment,
        traceparent=traceparent(event),
        overruled_priority=None if inner_priority == priority else inner_priority,
    )


def _build_type(word: str | None, runtime: str | None) -> BuildType | None:
    if word is None:
        return BUILD_TYPES["container" if runtime is None else "function"]
    return None if word == "function" and runtime is None else BUILD_TYPES[word]


def _source(
    url: str, ref: str | None, two_level_hosts: Collection[str], allowed_hosts: tuple[str, ...]
) -> Source | None:
    _, _, host, owner, name, *inner = url.split("/")
    if host not in two_level_hosts or not _is_fetched_from(host, allowed_hosts) or url.endswith(ARCHIVES):
        return None
    if ref is not None and len(ref) != _HASH_LENGTH:
        if ref == "refs":  # no branch, but the beginning of a longer name
            return None
        ref = f"refs/heads/{ref}"
    location = f"https://{host}/{owner}/{name.removesuffix('.git')}.git"
    return Source(_GIT, location, ref, inner[0] if inner else None)


@lru_cache(maxsize=128)
def _is_fetched_from(host: str, allowed_hosts: tuple[str, ...]) -> bool:
    return host in allowed_hosts if allowed_hosts else host_problem(host) is None


def _colons(data: dict[str, Any], environment: dict[str, str]) -> int:
    """How many there are in a text without escapes in which no key stands twice: one for each key, and the values'.

    Of two equal keys the parser keeps one and says nothing; the text has a colon more then.
    """
    parameters = data["parameters"]
    colons: int = len(data) + len(parameters) + len(environment) + parameters["source_url"].count(":")
    for value in environment.values():
        colons += value.count(":")
    return colons


# --- what the long way does alike -------------------------------------------------------------------------------------


def requested_at(event: Event, accepted_at: datetime) -> datetime:
    """When the build was asked for. An event's own time counts only if it is not later.

    A clock that runs ahead must not make one event supersede all that follow.
    """
    return accepted_at if event.time is None or event.time > accepted_at else event.time


def correlation_id(event: Event) -> str:
    """By which an event can be followed whose data says nothing. An empty extension names nothing."""
    return event.extensions.get("correlationid") or event.id


def traceparent(event: Event) -> str | None:
    """The trace that the event belongs to, if it says so in the right form."""
    text = event.extensions.get("traceparent")
    return text if text is not None and is_traceparent(text) else None
