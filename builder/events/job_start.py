"""The data of a job start event as senders write it (004: Job Start Event Data; design: Names).

Types, lengths and alphabets are checked here. What depends on settings or on two fields at once is ``request``'s.
"""

from collections.abc import Callable
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from builder.errors import EventRejected, Problem
from builder.events.json_text import parse_json
from builder.events.problems import Found
from builder.events.source_url import MAX_PATH, MAX_URL

# No lookahead in pydantic's patterns: "a dot is followed by another character" keeps ".." and a final dot out.
ID = r"^[A-Za-z0-9](?:(?:\.?[A-Za-z0-9_-])*\.?[A-Za-z0-9])?$"
ID_RULE = '1 to 100 letters, digits and . _ -, a letter or digit first and last, no ".."'
# As Kubernetes reads "RFC 1123 subdomain": no limit for one label, for 004's own name is a single one of 76.
JOB_NAME = r"^[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*$"
_JOB_NAME_RULE = "at most 253 lower-case letters, digits, - and ., a letter or digit at both ends of each part"
_PRIORITY_RULE = "a whole number from 1 (first) to 10"

DEFAULT_PRIORITY = 5

RESERVED_VARIABLES = frozenset({"RUNTIME", "BASE_IMAGE"})
"""Build arguments that the service sets itself."""
ENGINE_VARIABLES = "BUILDKIT_"
"""How build arguments begin that BuildKit itself obeys: one of them names an image to run."""


class _Part(BaseModel):
    """Strict: no value is turned into another type. Unknown fields are a newer sender's and are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class RuntimeWord(_Part):
    """A runtime in two fields. A version is text, for 3.10 as a number is 3.1."""

    language: str = Field(max_length=32)
    version: str = Field(max_length=32)


class Parameters(_Part):
    """How to build. Everything may be left out; null is the same as left out."""

    priority: int | None = Field(default=None, ge=1, le=10, description=_PRIORITY_RULE)
    build_type: Literal["container", "function"] | None = Field(default=None, description='"container" or "function"')
    runtime: str | RuntimeWord | None = Field(
        default=None, description="a word such as nodejs18, or an object of the strings language and version"
    )
    source_url: str | None = Field(
        default=None, max_length=MAX_URL, description=f"a URL of at most {MAX_URL} characters"
    )
    ref: str | None = Field(default=None, max_length=MAX_PATH, description=f"a string of at most {MAX_PATH} characters")
    sub_path: str | None = Field(
        default=None, max_length=MAX_PATH, description=f"a string of at most {MAX_PATH} characters"
    )
    dockerfile: str | None = Field(
        default=None, max_length=MAX_PATH, description=f"a string of at most {MAX_PATH} characters"
    )
    build_timeout: int | None = Field(default=None, description="a whole number of seconds")
    environment: dict[str, Any] | None = Field(default=None, description="an object of names and strings")


class JobStart(_Part):
    """What to build. The two ids are required; their absence is found together with everything else."""

    third_party_id: str | None = Field(default=None, pattern=ID, max_length=100, description=ID_RULE)
    parser_id: str | None = Field(default=None, pattern=ID, max_length=100, description=ID_RULE)
    correlation_id: str | None = Field(default=None, pattern=ID, max_length=100, description=ID_RULE)
    job_name: str | None = Field(default=None, pattern=JOB_NAME, max_length=253, description=_JOB_NAME_RULE)
    priority: int | None = Field(default=None, ge=1, le=10, description=_PRIORITY_RULE)
    parameters: Parameters | None = Field(default=None, description="an object")


_RULES: dict[tuple[str, ...], str | None] = {
    **{("data", name): info.description for name, info in JobStart.model_fields.items()},
    **{("data", "parameters", name): info.description for name, info in Parameters.model_fields.items()},
}

_validate: Callable[[object], JobStart] = JobStart.__pydantic_validator__.validate_python
"""What ``model_validate`` calls after some courtesies: this runs twice for each event."""


def read_job_start(data: bytes, found: Found) -> JobStart:
    """The fields that are as they should be; the others are added to ``found`` and are None in the result.

    So one pass over an event finds all that is wrong with it, whatever is wrong with a part of it.

    Raises:
        EventRejected: the data is no JSON object; there is nothing else to find.
    """
    value = parse_json(data, "data")
    if not isinstance(value, dict) or not value:
        raise EventRejected([Problem("data", "must be a JSON object with third_party_id and parser_id")])
    try:
        return _validate(value)
    except ValidationError as exc:
        wrong = {_path(error) for error in exc.errors(include_url=False, include_context=False, include_input=False)}
    for path in sorted(wrong):
        found.setdefault(".".join(path), f"must be {_RULES[path]}")
    return JobStart.model_validate(_without(value, wrong, "data"))


def _path(error: ErrorDetails) -> tuple[str, ...]:
    """The field of a pydantic error. What lies deeper, such as a union's branch, is of no use to a sender."""
    return ("data", *map(str, error["loc"][: 2 if error["loc"][0] == "parameters" else 1]))


def _without(value: dict[str, Any], wrong: set[tuple[str, ...]], *above: str) -> dict[str, Any]:
    """The object without the fields that are wrong, here and in ``parameters``."""
    return {
        name: _without(member, wrong, *above, name) if name == "parameters" and isinstance(member, dict) else member
        for name, member in value.items()
        if (*above, name) not in wrong
    }
