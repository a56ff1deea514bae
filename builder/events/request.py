"""From a job start event to a build request: defaults, settings, and every check that needs them (design: Names).

Called twice for each event, at the door and again by the worker that takes it from the queue, so that the queue holds
a few hundred bytes of text instead of objects.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from builder.build_settings import Build
from builder.errors import EventRejected
from builder.events.job_start import (
    DEFAULT_PRIORITY,
    ENGINE_VARIABLES,
    ID_RULE,
    RESERVED_VARIABLES,
    JobStart,
    Parameters,
    RuntimeWord,
    read_job_start,
)
from builder.events.parsing import Rejected
from builder.events.plain import BUILD_TYPES, correlation_id, plain_request, requested_at, traceparent
from builder.events.problems import Found, key, problems_from, quoted
from builder.events.routing import route
from builder.events.source_url import parse_path, parse_ref, parse_source
from builder.models import BuildRequest, BuildType, Event, Source, SourceKind, Target
from builder.settings import Intake

MAX_VARIABLES = 64
MAX_VALUE_BYTES = 32 * 2**10
MAX_ENVIRONMENT_BYTES = 64 * 2**10

_AT = "data.parameters."
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_NOTHING = Parameters()


def build_request(event: Event, accepted_at: datetime, build: Build, intake: Intake) -> BuildRequest:
    """The build that a job start event asks for.

    ``accepted_at`` is in UTC.

    Raises:
        EventRejected: with every problem of the event's data.
    """
    plain = plain_request(event, accepted_at, build, intake)
    return look_closely(event, accepted_at, build, intake) if plain is None else plain


def look_closely(event: Event, accepted_at: datetime, build: Build, intake: Intake) -> BuildRequest:
    """See ``build_request``: field by field, whatever the event looks like."""
    found: Found = {}
    data = read_job_start(event.data, found)
    parameters = _NOTHING if data.parameters is None else data.parameters
    target = _target(data, found)
    runtime = _runtime(parameters.runtime, build, found)
    build_type = _build_type(parameters, found)
    source = _source(parameters, target, build, intake, found)
    dockerfile = _dockerfile(parameters.dockerfile, build_type, found)
    build_timeout = _build_timeout(parameters.build_timeout, build, found)
    environment = _environment(parameters.environment, found)
    if found or target is None or source is None:
        raise EventRejected(problems_from(found))
    return BuildRequest(
        event_id=event.id,
        event_source=event.source,
        requested_at=requested_at(event, accepted_at),
        target=target,
        correlation_id=correlation_id(event) if data.correlation_id is None else data.correlation_id,
        job_name=data.job_name,
        priority=_priority(data, parameters),
        overruled_priority=_overruled(data, parameters),
        build_type=build_type,
        runtime=runtime,
        source=source,
        dockerfile=dockerfile,
        build_timeout=build_timeout,
        environment=environment,
        traceparent=traceparent(event),
    )


def with_data_problems(rejected: Rejected, build: Build, intake: Intake) -> Rejected:
    """A rejected event with the problems of its type and data beside those of its attributes.

    So that one answer names everything, though an event with wrong attributes never comes to ``build_request``.
    """
    if rejected.data is None:
        return rejected
    event_type = rejected.attributes.get("type", "")
    stand_in = Event("", "", event_type, subject=None, time=None, extensions={}, data=rejected.data)
    try:
        route(stand_in)
        build_request(stand_in, datetime.min.replace(tzinfo=UTC), build, intake)
    except EventRejected as exc:
        named = {problem.field for problem in rejected.problems}
        more = tuple(problem for problem in exc.problems if problem.field not in named)
        return replace(rejected, problems=(*rejected.problems, *more))
    return rejected


def _target(data: JobStart, found: Found) -> Target | None:
    if data.third_party_id is None:
        found.setdefault("data.third_party_id", f"is missing; it must be {ID_RULE}")
    if data.parser_id is None:
        found.setdefault("data.parser_id", f"is missing; it must be {ID_RULE}")
    if data.third_party_id is None or data.parser_id is None:
        return None
    return Target(data.third_party_id, data.parser_id)


def _priority(data: JobStart, parameters: Parameters) -> int:
    """004 writes it twice: the outer one wins."""
    if data.priority is not None:
        return data.priority
    return DEFAULT_PRIORITY if parameters.priority is None else parameters.priority


def _overruled(data: JobStart, parameters: Parameters) -> int | None:
    inner = parameters.priority
    return None if inner is None or data.priority is None or inner == data.priority else inner


def _runtime(wanted: str | RuntimeWord | None, build: Build, found: Found) -> str | None:
    """The key in ``build.runtimes``, which ``python311`` and the object of language and version mean as well."""
    if wanted is None:
        return None
    word = wanted if isinstance(wanted, str) else wanted.language + wanted.version
    if word in build.runtimes:
        return word
    for known in build.runtimes:
        if known.replace(".", "") == word:
            return known
    found.setdefault(f"{_AT}runtime", f"{quoted(word)} is not known; known are {', '.join(build.runtimes)}")
    return None


def _build_type(parameters: Parameters, found: Found) -> BuildType:
    if parameters.build_type is None:
        return BuildType.CONTAINER if parameters.runtime is None else BuildType.FUNCTION
    build_type = BUILD_TYPES[parameters.build_type]
    if build_type is BuildType.FUNCTION and parameters.runtime is None:
        found.setdefault(f"{_AT}runtime", 'is missing; build_type "function" needs one')
    return build_type


def _build_timeout(wanted: int | None, build: Build, found: Found) -> int:
    if wanted is None:
        return int(build.default_timeout)
    if not 1 <= wanted <= build.max_timeout:
        found.setdefault(f"{_AT}build_timeout", f"must be a whole number of seconds from 1 to {build.max_timeout:.0f}")
    return wanted


def _dockerfile(wanted: str | None, build_type: BuildType, found: Found) -> str | None:
    if wanted is not None and build_type is BuildType.FUNCTION and f"{_AT}build_type" not in found:
        found.setdefault(f"{_AT}dockerfile", 'must be left out: build_type "function" has the runtime\'s own')
    return _checked(parse_path, wanted, "dockerfile", found)


def _checked(check: Callable[[str], str], text: str | None, name: str, found: Found) -> str | None:
    if text is None:
        return None
    try:
        return check(text)
    except ValueError as exc:
        found.setdefault(f"{_AT}{name}", str(exc))
        return None


def _source(parameters: Parameters, target: Target | None, build: Build, intake: Intake, found: Found) -> Source | None:
    ref = _checked(parse_ref, parameters.ref, "ref", found)
    sub_path = _checked(parse_path, parameters.sub_path, "sub_path", found)
    url = parameters.source_url
    if url is None:
        url = _url_of(target, build, found)
    if url is None:
        return None
    try:
        source = parse_source(url, build.two_level_hosts, intake.allowed_source_hosts, ref, sub_path)
    except ValueError as exc:
        found.setdefault(f"{_AT}source_url", str(exc))
        return None
    if source.kind is SourceKind.BUCKET and not build.reads_buckets:
        found.setdefault(f"{_AT}source_url", f"must begin with https://: {build.engine} reads no buckets")
    if ref is not None and source.kind is not SourceKind.GIT:
        found.setdefault(f"{_AT}ref", "must be left out: only a Git repository has one")
    return source


def _url_of(target: Target | None, build: Build, found: Found) -> str | None:
    """The URL that the setting gives to a target. The ids hold nothing that means something in a URL."""
    if build.source_template is None:
        found.setdefault(
            f"{_AT}source_url", "is missing, and so is the setting build.sourceTemplate that would stand in for it"
        )
        return None
    if target is None:
        return None
    url = build.source_template.replace("{third_party_id}", target.third_party_id)
    return url.replace("{parser_id}", target.parser_id)


def _environment(wanted: Mapping[str, Any] | None, found: Found) -> Mapping[str, str]:
    if wanted is None:
        return {}
    at = f"{_AT}environment"
    if len(wanted) > MAX_VARIABLES:
        found.setdefault(at, f"must not have more than {MAX_VARIABLES} variables")
        return {}
    size = 0
    for name, value in wanted.items():
        problem = _variable_problem(name, value)
        if problem is None:
            size += len(name) + len(value.encode())
        else:
            found.setdefault(f"{at}.{key(name)}", problem)
    if size > MAX_ENVIRONMENT_BYTES:
        found.setdefault(at, f"must not be more than {MAX_ENVIRONMENT_BYTES} bytes of names and values in all")
    return wanted


def _variable_problem(name: str, value: object) -> str | None:
    if not _VARIABLE.fullmatch(name):
        return "is no name of a variable: a letter or _, then at most 127 letters, digits and _"
    if name in RESERVED_VARIABLES:
        return "is set by the service itself"
    if name.startswith(ENGINE_VARIABLES):
        return "would steer the build engine itself"
    if not isinstance(value, str):
        return "must be a string"
    if "\0" in value or len(value.encode()) > MAX_VALUE_BYTES:
        return f"must have at most {MAX_VALUE_BYTES} bytes, and no NUL"
    return None
