"""From a job start event to a build request: what every field means, and all that is wrong with one at once."""

import copy
import dataclasses
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builder.build_settings import Build, Runtime
from builder.errors import EventRejected, Problem
from builder.events.parsing import Rejected
from builder.events.request import build_request, with_data_problems
from builder.models import BuildRequest, BuildType, Event, Source, SourceKind, Target
from builder.settings import Intake

ACCEPTED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
BUILD, INTAKE = Build(), Intake()
URL = "https://github.com/o/r"
MINIMUM = {"third_party_id": "t", "parser_id": "p", "parameters": {"source_url": URL}}
EVENT = Event("1", "/s", "t", None, None, {}, b"")
KNOWN = "nodejs18, nodejs20, nodejs22, python3.11, python3.12, python3.13, go1.23, go1.24, go1.25"

ID_RULE = 'must be 1 to 100 letters, digits and . _ -, a letter or digit first and last, no ".."'
PRIORITY_RULE = "must be a whole number from 1 (first) to 10"


def request_of(data: object, *, build: Build = BUILD, intake: Intake = INTAKE, event: Event = EVENT) -> BuildRequest:
    text = data if isinstance(data, bytes) else json.dumps(data).encode()
    return build_request(event._replace(data=text), ACCEPTED, build, intake)


def problems_of(data: object, *, build: Build = BUILD, intake: Intake = INTAKE) -> dict[str, str]:
    with pytest.raises(EventRejected) as caught:
        request_of(data, build=build, intake=intake)
    assert caught.value.status == 400
    return {problem.field: problem.message for problem in caught.value.problems}


def outer(**changes: object) -> dict[str, object]:
    return {**MINIMUM, **changes}


def inner(**changes: object) -> dict[str, object]:
    return {**MINIMUM, "parameters": {"source_url": URL, **changes}}


def test_the_example_of_004(event: Event) -> None:
    """004-R16, every field of it."""
    assert build_request(event, ACCEPTED, BUILD, INTAKE) == BuildRequest(
        event_id="uuid",
        event_source="network.notifi.kaniko-jobs",
        requested_at=datetime(2024, 1, 1, tzinfo=UTC),
        target=Target("0307ea43639b4616b044d190310a26bd", "0197ad6c10b973b2b854a0e652155b7e"),
        correlation_id="uuid",
        job_name="kaniko-job-0307ea43639b4616b044d190310a26bd-0197ad6c10b973b2b854a0e652155b7e",
        priority=1,
        build_type=BuildType.CONTAINER,
        runtime="nodejs18",
        source=Source(
            SourceKind.GIT, "https://github.com/notifi/parsers.git", None, "0197ad6c10b973b2b854a0e652155b7e"
        ),
        dockerfile=None,
        build_timeout=1800,
        environment={"NODE_ENV": "production", "BUILD_MODE": "optimized"},
        traceparent=None,
    )


def test_everything_left_out_has_a_default() -> None:
    """Only ids and a source are needed."""
    assert request_of(MINIMUM) == BuildRequest(
        event_id="1",
        event_source="/s",
        requested_at=ACCEPTED,
        target=Target("t", "p"),
        correlation_id="1",
        job_name=None,
        priority=5,
        build_type=BuildType.CONTAINER,
        runtime=None,
        source=Source(SourceKind.GIT, "https://github.com/o/r.git"),
        dockerfile=None,
        build_timeout=1800,
        environment={},
        traceparent=None,
    )


def test_null_is_left_out_and_unknown_is_ignored() -> None:
    """Newer senders may say more, and some say null for nothing."""
    nothing = dict.fromkeys(("correlation_id", "job_name", "priority"))
    nothing_inside = dict.fromkeys(
        ("priority", "build_type", "runtime", "ref", "sub_path", "build_timeout", "environment")
    )
    data = {**inner(**nothing_inside, newer={"a": 1.5}), **nothing, "newest": [1e400]}
    assert request_of(json.dumps(data).replace("Infinity", "1e400").encode()) == request_of(MINIMUM)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty; a JSON text is wanted"),
        (b"null", "must be a JSON object with third_party_id and parser_id"),
        (b"[]", "must be a JSON object with third_party_id and parser_id"),
        (b"{}", "must be a JSON object with third_party_id and parser_id"),
        (b'"{}"', "must be a JSON object with third_party_id and parser_id"),
        (b"1", "must be a JSON object with third_party_id and parser_id"),
        (b'{"a": 1,}', "is not JSON: trailing comma, at line 1 column 9"),
        (
            b'{"parser_id": "a", "parser_id": "b"}',
            'is JSON with the key "parser_id" twice in one object, at line 1 column 32',
        ),
    ],
)
def test_data_that_is_no_object(data: bytes, message: str) -> None:
    """There is nothing else to find in it."""
    assert problems_of(data) == {"data": message}


class TestIds:
    """E11, E12: what becomes names, labels and paths."""

    @pytest.mark.parametrize("text", ["a", "A", "0", "a.b_c-D", "a" * 100, "0307ea43639b4616b044d190310a26bd", "a.b.c"])
    def test_good(self, text: str) -> None:
        """Case is kept, for it matters."""
        request = request_of(outer(third_party_id=text, parser_id=text, correlation_id=text))
        assert (request.target, request.correlation_id) == (Target(text, text), text)

    @pytest.mark.parametrize(
        "value",
        [
            "", "a" * 101, ".", "..", "-a", "a-", ".a", "a.", "_a", "a..b", "a/b", "../a", "a\\b", "a b", " a", "a\n",
            "a\0b", "a\r\nb", "'a'", '"a"', "a;b", "$(a)", "${a}", "{{a}}", "`a`", "a|b", "a&b", "a%2fb", "%2e%2e",
            "&#47;", "ä", "a\u200bb", "\uff41", "a\u0301", 1, 1.5, True, [], {}, ["a"],
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("field", ["third_party_id", "parser_id", "correlation_id"])
    def test_bad(self, field: str, value: object) -> None:
        """Nothing that means anything to a path, a shell, a template or an URL."""
        assert problems_of(outer(**{field: value})) == {f"data.{field}": ID_RULE}

    def test_missing(self) -> None:
        """Both are named, whatever else is wrong."""
        message = f"is missing; it {ID_RULE}"
        assert problems_of({"parameters": {"source_url": URL}, "third_party_id": None}) == {
            "data.third_party_id": message,
            "data.parser_id": message,
        }

    def test_correlation_falls_back(self) -> None:
        """E12: the data's, else the extension's, else the event's id; these two are any text that an attribute may be."""
        with_extension = EVENT._replace(id="a/b", extensions={"correlationid": "x y"})
        assert request_of(outer(correlation_id="c"), event=with_extension).correlation_id == "c"
        assert request_of(MINIMUM, event=with_extension).correlation_id == "x y"
        assert request_of(MINIMUM, event=EVENT._replace(id="a/b")).correlation_id == "a/b"
        assert request_of(MINIMUM, event=EVENT._replace(extensions={"correlationid": ""})).correlation_id == "1"


@pytest.mark.parametrize("name", ["a", "a-b.c", "0", "a" * 253, "kaniko-job-x"])
def test_job_name(name: str) -> None:
    """Kubernetes' own rule; a name over 63 characters is cut later, as 004's must be."""
    assert request_of(outer(job_name=name)).job_name == name


@pytest.mark.parametrize(
    "name", ["", "A", "a_b", "-a", "a-", "a..b", ".a", "a.", "a/b", "a b", "a" * 254, "a\n", "ä", 5]
)
def test_bad_job_name(name: object) -> None:
    """It would be a 422 later, where nobody hears of it."""
    rule = "must be at most 253 lower-case letters, digits, - and ., a letter or digit at both ends of each part"
    assert problems_of(outer(job_name=name)) == {"data.job_name": rule}


class TestPriority:
    """E6: 1 is first, the outer one wins, 5 where nothing is said."""

    @pytest.mark.parametrize(
        ("outer_one", "inner_one", "priority", "overruled"),
        [(1, 9, 1, 9), (3, 3, 3, None), (None, 9, 9, None), (10, None, 10, None), (None, None, 5, None)],
    )
    def test_good(self, outer_one: int | None, inner_one: int | None, priority: int, overruled: int | None) -> None:
        """004 writes it twice."""
        request = request_of({**inner(priority=inner_one), "priority": outer_one})
        assert (request.priority, request.overruled_priority) == (priority, overruled)

    @pytest.mark.parametrize("value", [0, 11, -1, 10**4000, True, False, 1.0, 1.5, "1", [], {}])
    def test_bad(self, value: object) -> None:
        """A bool is no number and a float no whole one, wherever it stands."""
        assert problems_of(outer(priority=value)) == {"data.priority": PRIORITY_RULE}
        assert problems_of(inner(priority=value)) == {"data.parameters.priority": PRIORITY_RULE}


class TestRuntime:
    """E8, E9: one grammar, one table, and what follows for the build type."""

    @pytest.mark.parametrize(
        ("runtime", "known"),
        [
            ("nodejs18", "nodejs18"),
            ("python3.11", "python3.11"),
            ("python311", "python3.11"),
            ("go1.23", "go1.23"),
            ("go123", "go1.23"),
            ({"language": "python", "version": "3.11"}, "python3.11"),
            ({"language": "python", "version": "311"}, "python3.11"),
            ({"language": "nodejs", "version": "18", "handler": "x"}, "nodejs18"),
        ],
    )
    def test_good(self, runtime: object, known: str) -> None:
        """With or without dot, as one word or two; a runtime without a build type means a function."""
        request = request_of(inner(runtime=runtime))
        assert (request.runtime, request.build_type) == (known, BuildType.FUNCTION)

    @pytest.mark.parametrize(
        ("runtime", "shown"),
        [
            ("nodejs", '"nodejs"'),
            ("nodejs16", '"nodejs16"'),
            ("NodeJS18", '"NodeJS18"'),
            ("python31.1", '"python31.1"'),
            ("python3.11 ", '"python3.11 "'),
            ("ruby3", '"ruby3"'),
            ("", '""'),
            ("\x1b[31m" + "x" * 100, '"\\u001b[31m' + "x" * 55 + '…"'),
            ({"language": "go", "version": "2"}, '"go2"'),
        ],
    )
    def test_unknown(self, runtime: object, shown: str) -> None:
        """The answer lists what is known and shows the word unarmed."""
        expected = {"data.parameters.runtime": f"{shown} is not known; known are {KNOWN}"}
        assert problems_of(inner(runtime=runtime)) == expected

    @pytest.mark.parametrize(
        "runtime",
        [18, True, [], {}, {"language": "python"}, {"language": "python", "version": 3.11}, {"version": "18"}],
    )
    def test_wrong_type(self, runtime: object) -> None:
        """A version is text: 3.10 as a number is 3.1."""
        rule = "must be a word such as nodejs18, or an object of the strings language and version"
        assert problems_of(inner(runtime=runtime)) == {"data.parameters.runtime": rule}

    def test_the_table_is_a_setting(self) -> None:
        """A runtime of the administrator's own."""
        build = Build(runtimes={"nodejs99": Runtime(language="nodejs", base_image="example.com/node:99")})
        assert request_of(inner(runtime="nodejs99"), build=build).runtime == "nodejs99"

    def test_a_container_keeps_its_runtime(self) -> None:
        """As 004's own example, where it becomes a build argument."""
        request = request_of(inner(runtime="go1.23", build_type="container"))
        assert (request.runtime, request.build_type) == ("go1.23", BuildType.CONTAINER)

    def test_a_function_needs_one(self) -> None:
        """Or which Dockerfile would be built?"""
        expected = {"data.parameters.runtime": 'is missing; build_type "function" needs one'}
        assert problems_of(inner(build_type="function")) == expected

    @pytest.mark.parametrize("value", ["", "Container", "image", 1, True, [], None.__class__.__name__])
    def test_build_type(self, value: object) -> None:
        """One of two words."""
        rule = 'must be "container" or "function"'
        assert problems_of(inner(build_type=value)) == {"data.parameters.build_type": rule}


class TestSource:
    """``source_url``, ``ref``, ``sub_path``: test_source_url has the details."""

    def test_fields_win(self) -> None:
        """E7."""
        data = inner(source_url=f"{URL}/tree/v1/a", ref="v2", sub_path="b/c")
        assert request_of(data).source == Source(SourceKind.GIT, "https://github.com/o/r.git", "refs/heads/v2", "b/c")

    def test_each_field_has_its_own_problem(self) -> None:
        """And all of them are named."""
        problems = problems_of(inner(source_url="http://x", ref="-x", sub_path="../x", dockerfile="/x"))
        assert {field: message.split(":")[0].split(",")[0] for field, message in problems.items()} == {
            "data.parameters.source_url": "must begin with https",
            "data.parameters.ref": "must be a branch",
            "data.parameters.sub_path": "must be a relative path of at most 512 letters",
            "data.parameters.dockerfile": "must be a relative path of at most 512 letters",
        }

    @pytest.mark.parametrize("field", ["source_url", "ref", "sub_path", "dockerfile"])
    @pytest.mark.parametrize("value", [1, True, [], {}, "x" * 5000])
    def test_wrong_types_and_lengths(self, field: str, value: object) -> None:
        """Named once, under the field."""
        assert list(problems_of(inner(**{field: value}))) == [f"data.parameters.{field}"]

    def test_only_git_has_a_ref(self) -> None:
        """A ref that nothing reads would be a wish that is silently not granted."""
        expected = {"data.parameters.ref": "must be left out: only a Git repository has one"}
        assert problems_of(inner(source_url="https://example.com/x.tar.gz", ref="main")) == expected

    def test_an_archive_has_a_sub_path(self) -> None:
        """Kaniko takes it for every kind of context."""
        source = request_of(inner(source_url="s3://bucket/x.tar.gz", sub_path="a")).source
        assert source == Source(SourceKind.BUCKET, "s3://bucket/x.tar.gz", None, "a")

    def test_a_template_stands_in(self) -> None:
        """E17: the old events name no source. The ids are put in as they are, whatever braces they are near."""
        build = Build(source_template="https://git.example.com/{third_party_id}/{parser_id}.git")
        request = request_of({"third_party_id": "T", "parser_id": "P.1"}, build=build)
        assert request.source == Source(SourceKind.GIT, "https://git.example.com/T/P.1.git")

    def test_a_template_is_checked_like_a_url(self) -> None:
        """A setting of one day must not open what the checks close."""
        build = Build(source_template="https://{third_party_id}/{parser_id}.git")
        data = {"third_party_id": "localhost", "parser_id": "p"}
        assert list(problems_of(data, build=build)) == ["data.parameters.source_url"]
        allowed = Intake(allowed_source_hosts=("localhost",))
        assert request_of(data, build=build, intake=allowed).source.location == "https://localhost/p.git"

    def test_neither_url_nor_template(self) -> None:
        """The answer names the field and the setting, beside all else."""
        assert problems_of({"third_party_id": "t", "parser_id": ""}) == {
            "data.parser_id": ID_RULE,
            "data.parameters.source_url": (
                "is missing, and so is the setting build.sourceTemplate that would stand in for it"
            ),
        }

    def test_settings_narrow_the_hosts(self) -> None:
        """intake.allowedSourceHosts and build.twoLevelHosts are asked."""
        problem = {"data.parameters.source_url": "must be of a host in the setting intake.allowedSourceHosts"}
        assert problems_of(MINIMUM, intake=Intake(allowed_source_hosts=("git.example.com",))) == problem
        source = request_of(MINIMUM, build=Build(two_level_hosts=())).source
        assert source == Source(SourceKind.GIT, "https://github.com/o/r")

    def test_a_function_has_no_dockerfile(self) -> None:
        """It is the runtime's."""
        expected = {"data.parameters.dockerfile": 'must be left out: build_type "function" has the runtime\'s own'}
        assert problems_of(inner(runtime="nodejs18", dockerfile="Dockerfile")) == expected
        data = inner(runtime="nodejs18", dockerfile="a/Dockerfile", build_type="container")
        assert request_of(data).dockerfile == "a/Dockerfile"


class TestTimeout:
    """Seconds, bounded by a setting."""

    @pytest.mark.parametrize("seconds", [1, 1800, 7200])
    def test_good(self, seconds: int) -> None:
        """Both ends included."""
        assert request_of(inner(build_timeout=seconds)).build_timeout == seconds

    def test_defaults_are_settings(self) -> None:
        """Whole seconds, as Kubernetes counts."""
        assert request_of(MINIMUM, build=Build(default_timeout="90500ms")).build_timeout == 90  # type: ignore[arg-type]

    @pytest.mark.parametrize("value", [0, -1, 7201, 10**4000])
    def test_out_of_range(self, value: int) -> None:
        """The answer says what is allowed."""
        rule = "must be a whole number of seconds from 1 to 7200"
        assert problems_of(inner(build_timeout=value)) == {"data.parameters.build_timeout": rule}

    @pytest.mark.parametrize("value", [True, 1.0, "1800", "30m", [], {}])
    def test_wrong_type(self, value: object) -> None:
        """No guessing."""
        assert problems_of(inner(build_timeout=value)) == {
            "data.parameters.build_timeout": "must be a whole number of seconds"
        }


NO_NAME = "is no name of a variable: a letter or _, then at most 127 letters, digits and _"
SET_BY_US = "is set by the service itself"
TOO_LONG = "must have at most 32768 bytes, and no NUL"


class TestEnvironment:
    """What becomes build arguments."""

    @pytest.mark.parametrize(
        "environment",
        [
            {},
            {"A": "", "_b1": "x y\n\t'\"$(X) ü😀", "A" * 128: "--flag"},
            {f"A{number}": "x" for number in range(64)},
            {"A": "x" * 32768},
            {"A": "ü" * 16384, "B": "ü" * 16382, "C": "x"},
        ],
        ids=["empty", "any text", "64", "32 KiB", "64 KiB"],
    )
    def test_good(self, environment: Mapping[str, str]) -> None:
        """Values are text of any kind; they are escaped where they are used."""
        assert request_of(inner(environment=environment)).environment == environment

    @pytest.mark.parametrize(
        ("name", "value", "field", "message"),
        [
            ("9BAD", "x", "9BAD", NO_NAME),
            ("", "x", '""', NO_NAME),
            ("A-B", "x", "A-B", NO_NAME),
            ("A=B", "x", '"A=B"', NO_NAME),
            ("A B", "x", '"A B"', NO_NAME),
            ("A\n", "x", '"A\\n"', NO_NAME),
            ("Ä", "x", '"\\u00c4"', NO_NAME),
            ("A.B", "x", '"A.B"', NO_NAME),
            ("A" * 129, "x", '"' + "A" * 60 + '…"', NO_NAME),
            ("RUNTIME", "x", "RUNTIME", SET_BY_US),
            ("BASE_IMAGE", "x", "BASE_IMAGE", SET_BY_US),
            ("A", 1, "A", "must be a string"),
            ("A", True, "A", "must be a string"),
            ("A", None, "A", "must be a string"),
            ("A", ["x"], "A", "must be a string"),
            ("A", "a\0b", "A", TOO_LONG),
            ("A", "x" * 32769, "A", TOO_LONG),
            ("A", "ü" * 16385, "A", TOO_LONG),
        ],
    )
    def test_bad_entry(self, name: str, value: object, field: str, message: str) -> None:
        """The variable is named, in a form that cannot harm a log."""
        problems = problems_of(inner(environment={"OK": "x", name: value}))
        assert problems == {f"data.parameters.environment.{field}": message}

    @pytest.mark.parametrize(
        ("environment", "message"),
        [
            ({f"{number}": 1 for number in range(65)}, "must not have more than 64 variables"),
            ({"A": "x" * 32768, "B": "x" * 32768}, "must not be more than 65536 bytes of names and values in all"),
            ([], "must be an object of names and strings"),
            ("A=1", "must be an object of names and strings"),
            (1, "must be an object of names and strings"),
        ],
        ids=["many", "large", "list", "text", "number"],
    )
    def test_bad_whole(self, environment: object, message: str) -> None:
        """One problem, however many entries."""
        assert problems_of(inner(environment=environment)) == {"data.parameters.environment": message}

    def test_half_a_surrogate_pair(self) -> None:
        """It is no text, and could be written nowhere."""
        data = json.dumps(inner(environment={"A": "x"})).replace('"x"', r'"\ud800"').encode()
        assert list(problems_of(data)) == ["data"]


@pytest.mark.parametrize("parameters", [1, "x", [], True])
def test_parameters_that_are_no_object(parameters: object) -> None:
    """Named beside what is missing in consequence."""
    assert list(problems_of(outer(parameters=parameters))) == ["data.parameters", "data.parameters.source_url"]


def test_everything_wrong_is_in_one_answer() -> None:
    """Types, ranges, settings and combinations: a sender fixes all of it in one go."""
    problems = problems_of(
        {
            "third_party_id": "../etc",
            "priority": 11,
            "job_name": "UPPER",
            "correlation_id": 5,
            "parameters": {
                "priority": True,
                "build_type": "function",
                "source_url": "https://127.1/x",
                "ref": "-x",
                "sub_path": "..",
                "dockerfile": "Dockerfile",
                "build_timeout": 0,
                "environment": {"RUNTIME": "x", "9": "x", "A": 1},
            },
        }
    )
    assert sorted(problems) == [
        "data.correlation_id",
        "data.job_name",
        "data.parameters.build_timeout",
        "data.parameters.dockerfile",
        "data.parameters.environment.9",
        "data.parameters.environment.A",
        "data.parameters.environment.RUNTIME",
        "data.parameters.priority",
        "data.parameters.ref",
        "data.parameters.runtime",
        "data.parameters.source_url",
        "data.parameters.sub_path",
        "data.parser_id",
        "data.priority",
        "data.third_party_id",
    ]


class TestWithDataProblems:
    """One answer for the attributes and the data of an event that is rejected for its attributes."""

    PROBLEM = Problem("id", "is missing; every CloudEvent has one")

    def rejected(self, event_type: str, data: bytes | None) -> Rejected:
        return Rejected({"type": event_type}, "application/json", b"", (self.PROBLEM,), data=data)

    def complete(self, event_type: str, data: object) -> list[str]:
        rejected = self.rejected(event_type, json.dumps(data).encode())
        return [problem.field for problem in with_data_problems(rejected, BUILD, INTAKE).problems]

    def test_adds_what_is_wrong(self) -> None:
        """The data's problems, or that nobody knows the type."""
        assert self.complete("lambda.build.start", MINIMUM) == ["id"]
        assert self.complete("lambda.build.start", outer(priority=0)) == ["id", "data.priority"]
        assert self.complete("lambda.build.start", 5) == ["id", "data"]
        assert self.complete("unknown", outer(priority=0)) == ["id", "type"]

    def test_leaves_the_rest_as_it_is(self) -> None:
        """A field is named once, and data that could not be read has no problems."""
        rejected = self.rejected("lambda.build.start", None)
        assert with_data_problems(rejected, BUILD, INTAKE) is rejected
        wrong_type = dataclasses.replace(self.rejected("", b"{}"), problems=(Problem("type", "must not be empty"),))
        assert with_data_problems(wrong_type, BUILD, INTAKE) == wrong_type


def test_a_thousand_problems_are_not_a_thousand_lines() -> None:
    """An answer stays shorter than the request that asked for it."""
    environment = {f"{number}": "x" for number in range(64)}
    with pytest.raises(EventRejected) as caught:
        request_of(inner(environment=environment))
    assert len(caught.value.problems) == 51
    assert caught.value.problems[-1] == Problem("", "and 14 more problems of the same event")


class TestRequestedAt:
    """Order: the event's own time where it has one, but never a time to come."""

    @pytest.mark.parametrize(
        ("time", "requested_at"),
        [
            (None, ACCEPTED),
            (ACCEPTED - timedelta(days=1), ACCEPTED - timedelta(days=1)),
            (ACCEPTED + timedelta(days=1), ACCEPTED),
        ],
    )
    def test_is_the_earlier_of_both(self, time: datetime | None, requested_at: datetime) -> None:
        """A clock that runs ahead must not supersede everybody else for ever."""
        request = request_of(MINIMUM, event=EVENT._replace(time=time))
        assert request.requested_at == requested_at
        assert request.requested_at.tzinfo is UTC


@pytest.mark.parametrize(
    ("extensions", "traceparent"),
    [
        ({}, None),
        ({"traceparent": "broken"}, None),
        (
            {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ),
    ],
)
def test_traceparent(extensions: Mapping[str, str], traceparent: str | None) -> None:
    """It ends in an annotation of the Job, so it must be what it says."""
    assert request_of(MINIMUM, event=EVENT._replace(extensions=extensions)).traceparent == traceparent


odd = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["a", "main", URL, "nodejs18"]),
    lambda deeper: st.lists(deeper, max_size=3) | st.dictionaries(st.text(), deeper, max_size=3),
    max_leaves=5,
)
fields = ["third_party_id", "parser_id", "correlation_id", "job_name", "priority"]
parameters = ["priority", "build_type", "runtime", "source_url", "ref", "sub_path", "dockerfile", "build_timeout"]


@given(
    st.dictionaries(st.sampled_from(fields) | st.text(), odd),
    st.dictionaries(st.sampled_from([*parameters, "environment"]) | st.text(), odd),
)
def test_no_data_breaks_it(outside: dict[str, Any], inside: dict[str, Any]) -> None:
    """Any JSON is a request or a rejection whose problems all have a field and fit on a terminal."""
    data = copy.deepcopy({**MINIMUM, **outside, "parameters": {**MINIMUM["parameters"], **inside}})  # type: ignore[dict-item]
    text = json.dumps(data).encode("utf-8", "surrogatepass")
    try:
        request_of(text)
    except EventRejected as exc:
        assert exc.problems  # noqa: PT017 -- either way is right
        for problem in exc.problems:
            assert problem.field.startswith("data")
            assert str(problem).isprintable()


@given(st.binary() | st.text().map(str.encode))
def test_no_bytes_break_it(data: bytes) -> None:
    """Data that is no JSON at all is rejected, and nothing else happens."""
    with pytest.raises(EventRejected):
        request_of(data)
