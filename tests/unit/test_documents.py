"""The documents say what is so: snippets run, tables are compared with the code, links lead somewhere."""

import ast
import asyncio
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

import builder
from builder import app, cli, errors
from builder.adapters.kubernetes.cluster import _VERBS
from builder.adapters.memory_cluster import MemoryCluster
from builder.adapters.memory_cluster.rules import check_job
from builder.adapters.memory_journal import MemoryJournal
from builder.adapters.web.routes import Route
from builder.build_settings import Build
from builder.errors import ClusterError, SettingsError
from builder.events import job_start, request, routing
from builder.events.job_start import JobStart, Parameters
from builder.events.parsing import MAX_BATCH, STRUCTURED_TYPE, parse_http
from builder.events.source_url import parse_source
from builder.flow import ports, worker_pool
from builder.flow.items import Wait
from builder.jobs.manifest import build_job
from builder.metrics import Metrics
from builder.models import Decision, Event, FailureReason, Outcome, Source
from builder.setting_types import parse_duration
from builder.settings import Memory, Settings
from builder.settings_sources import _leaves, validate, variable
from tests import building

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/runbook.md")
LOCAL = "http://localhost:8080"
PATIENCE = 10.0
"""Seconds for what the service does behind a reader's back."""


# --- reading Markdown -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """A fenced block. ``mark`` is the HTML comment right above it, such as ``file: event.json``."""

    place: str
    language: str
    mark: str
    text: str


def read(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


README, ARCHITECTURE = read("README.md"), read("ARCHITECTURE.md")


def blocks(document: str, *languages: str) -> list[Block]:
    fence = re.compile(r"(?:<!-- ([^\n]*) -->\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    text = read(document)
    return [
        Block(f"{document}:{text.count(chr(10), 0, found.start(2)) + 1}", found[2], found[1] or "", found[3])
        for found in fence.finditer(text)
        if found[2] in languages
    ]


def table(text: str, *header: str) -> list[list[str]]:
    """The cells of the one table with this header."""
    head = re.escape(f"| {' | '.join(header)} |")
    (rows,) = re.findall(rf"^{head}\n\|[-|]+\|\n((?:\|.*\|\n)+)", text, re.MULTILINE)
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows.splitlines()]


def codes(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def first_codes(rows: list[list[str]]) -> list[str]:
    return [codes(row[0])[0] for row in rows]


def prose(document: str) -> str:
    return re.sub(r"^```.*?^```$", "", read(document), flags=re.MULTILINE | re.DOTALL)


def anchors(document: str) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# --- snippets ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reader:
    """Somebody who types what the README says, in a folder of their own, at a service of their own."""

    folder: Path
    url: str
    environ: dict[str, str]

    def types(self, command: str) -> str:
        ran = subprocess.run(
            ["bash", "-c", command.replace(LOCAL, self.url)],
            cwd=self.folder,
            env=self.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=30,
            check=False,
        )
        return ran.stdout if ran.stdout.endswith("\n") else ran.stdout + "\n"

    def sees(self, command: str, expected: re.Pattern[str]) -> str | None:
        """None if the output is as expected, else the output. What only asks is asked until it is, or time is up."""
        only_asks = command.startswith("curl") and " -d " not in command
        end = time.monotonic() + (PATIENCE if only_asks else 0)
        while not expected.fullmatch(output := self.types(command)):
            if time.monotonic() >= end:
                return output
        return None


def plain_environment() -> dict[str, str]:
    """No settings but the README's."""
    ours = {"PORT", "KUBECONFIG"}
    return {name: value for name, value in os.environ.items() if name not in ours and not name.startswith("BUILDER_")}


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    for tool in ("bash", "curl"):
        if shutil.which(tool) is None:
            absent = pytest.fail if "CI" in os.environ else pytest.skip
            absent(f"the README's commands need {tool}")
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    for block in blocks("README.md", "json", "yaml"):
        if block.mark.startswith("file: "):
            (tmp_path / block.mark.removeprefix("file: ")).write_text(block.text, encoding="utf-8")
    environ = plain_environment()
    environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environ['PATH']}"
    environ["PYTHONWARNINGS"] = "error"
    fast = {f"BUILDER_MEMORY__{name}_TIME": "10ms" for name in ("PENDING", "BUILD", "DELETION")}
    command = [sys.executable, "-m", "builder", "serve", "--cluster", "memory", "--host", "127.0.0.1", "--port", "0"]
    kept = {"BUILDER_JOURNAL__PATH": str(tmp_path / "journal.sqlite3")}
    log = tmp_path / "log"
    with log.open("wb") as out:
        service = subprocess.Popen(command, cwd=ROOT, env=environ | fast | kept, stdout=out, stderr=subprocess.STDOUT)
    try:
        yield Reader(tmp_path, _url(log, service), environ)
    finally:
        service.terminate()
        code = service.wait(30)
    assert code == 0, log.read_text()


def _url(log: Path, service: subprocess.Popen[bytes]) -> str:
    while service.poll() is None:
        if found := re.search(r'"url": ?"([^"]+)".*\n', log.read_text()):
            return found[1]
        time.sleep(0.02)
    pytest.fail(f"the service did not start: {log.read_text()}")


def steps(block: Block) -> Iterator[tuple[str, re.Pattern[str]]]:
    """Each command of a console block with the pattern of what it prints."""
    for step in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        lines = step.splitlines()
        size = next((n for n in range(1, len(lines) + 1) if _is_whole("\n".join(lines[:n]))), len(lines))
        yield "\n".join(lines[:size]), pattern(lines[size:])


def _is_whole(command: str) -> bool:
    """No quote is open, and no line goes on."""
    return not command.endswith("\\") and command.count("'") % 2 == 0


def pattern(lines: list[str]) -> re.Pattern[str]:
    """``…`` is anything in a line; alone in one it is any lines."""
    parts = ["(?:.*\n)*" if line == "…" else re.escape(line).replace("…", ".*") + "\n" for line in lines]
    return re.compile("".join(parts))


@pytest.mark.timeout(300)
def test_who_types_the_readme_sees_what_it_shows(reader: Reader) -> None:
    """From top to bottom, for one step may build on those before."""
    typed = 0
    for block in blocks("README.md", "console"):
        if block.mark.startswith("broker: "):  # see tests/integration/test_readme.py
            continue
        for command, expected in steps(block):
            output = reader.sees(command, expected)
            assert output is None, f"{block.place}: {command}\nprints\n{output}\nand not\n{expected.pattern}"
            typed += 1
    assert typed >= 10


def test_the_example_event_is_the_specifications_and_becomes_a_job() -> None:
    """004's example word for word, but for its ids."""
    (block,) = blocks("README.md", "json")
    example, ours = json.loads(block.text), building.EXAMPLE
    own = {"id": ours["id"], "subject": ours["subject"]}
    data = example["data"] | {"correlation_id": ours["data"]["correlation_id"]}
    assert example | own | {"data": data} == ours
    (event,) = parse_http(STRUCTURED_TYPE, (), block.text.encode()).items
    assert isinstance(event, Event)
    settings = building.settings()
    check_job(build_job(request.build_request(event, building.NOON, settings.build, settings.intake), settings), "x")


@pytest.mark.parametrize("block", blocks("README.md", "yaml"), ids=lambda block: block.place)
def test_yaml_is_settings_or_the_role_that_we_need(block: Block) -> None:
    tree = yaml.safe_load(block.text)
    if "apiVersion" in tree:
        role, _ = yaml.safe_load_all(read("k8s/base/role.yaml"))
        assert tree["rules"] == role["rules"]
        assert tree["rules"] == [{"apiGroups": ["batch"], "resources": ["jobs"], "verbs": list(_VERBS)}]
        return
    settings = validate({"cluster": "memory"} | tree)
    if block.mark == "default: build.runtimes":
        assert list(settings.build.runtimes.items()) == list(Build().runtimes.items())


@pytest.mark.parametrize("block", [b for d in DOCUMENTS for b in blocks(d, "sh")], ids=lambda block: block.place)
def test_shell_lines_for_people_name_what_there_is(block: Block) -> None:
    """They need a cluster or minutes, so they are not run: their syntax, targets, files and flags are looked at."""
    subprocess.run(["bash", "-n", "-c", block.text], check=True)
    makefile = read("Makefile")
    for target in re.findall(r"^make (\w+)", block.text, re.MULTILINE):
        assert f"\n{target}:" in makefile
    for path in re.findall(r"(?:scripts|tests|builder)/[\w./-]+", block.text):
        assert (ROOT / path).exists(), path
    for command, rest in re.findall(
        r"^knative-lambda-builder (dead-letters \w+|\w+)([^|\n]*)", block.text, re.MULTILINE
    ):
        shown = help_of(*command.split())
        assert all(flag in shown for flag in re.findall(r"--[a-z-]+", rest))


def test_make_run_prints_what_the_quick_start_shows() -> None:
    shown = [line for block in blocks("README.md", "text") for line in block.text.splitlines() if line[:3] == "---"]
    tree = ast.parse(read("scripts/demo.py"))
    strings = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr | ast.Constant)]
    printed = [line for node in strings for line in _lines(node) if line.startswith("---")]
    assert len(shown) == 5
    for line in shown:
        assert any(re.fullmatch(re.escape(one).replace("\0", ".*"), line) for one in printed), line


def _lines(node: ast.JoinedStr | ast.Constant) -> list[str]:
    """The lines of a string in Python, a NUL for each thing that is put in."""
    values = node.values if isinstance(node, ast.JoinedStr) else [node]
    return "".join(str(one.value) if isinstance(one, ast.Constant) else "\0" for one in values).splitlines()


# --- tables -----------------------------------------------------------------------------------------------------------


def test_settings_table() -> None:
    """Every key, in the order of the model, with its default, and no other."""
    rows = table(README, "Key", "Default", "Meaning")
    keys = [key for key, _ in _leaves(Settings)]
    assert first_codes(rows) == [".".join(key) for key in keys]
    defaults = Settings.model_construct().model_dump(by_alias=True)
    for key, (_, shown, meaning) in zip(keys, rows, strict=True):
        default: Any = defaults
        for part in key:
            default = default[part]
        assert _is_shown_as(default, shown), f"{'.'.join(key)}: {default!r} is not {shown}"
        assert meaning


def _is_shown_as(default: object, shown: str) -> bool:
    if default is None:
        return shown == "unset"
    if isinstance(default, dict) and default:
        return shown == "[below](#runtimes)"  # a block of its own, see test_yaml…
    (text,) = codes(shown)
    if isinstance(default, float):
        return parse_duration(text) == default
    return json.loads(text) == list(default) if isinstance(default, tuple) else text == json.dumps(default).strip('"')


def test_the_variable_that_stands_for_a_key() -> None:
    key, name = "asyncJobCreator.workerCount", "BUILDER_ASYNC_JOB_CREATOR__WORKER_COUNT"
    assert f"`{key}` is `{name}`" in README
    assert variable(tuple(key.split("."))) == name


def test_a_registry_is_the_only_setting_without_a_default() -> None:
    with pytest.raises(SettingsError, match=r"^kaniko\.registry is not set"):
        validate({})
    validate({"kaniko": {"registry": "registry.example.com/team"}})


def assembled(cluster: MemoryCluster) -> app.Parts:
    """A service that does not run."""
    known = building.settings()
    clock = asyncio.get_running_loop().time
    return app.assemble(known, cluster, MemoryJournal(known.idempotency, known.dead_letters, clock))


async def test_endpoints_and_stats_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    routes: list[Route] = []
    monkeypatch.setattr(app, "listening", lambda _settings, given, *_: routes.extend(given))
    async with MemoryCluster(Memory()) as cluster:
        parts = assembled(cluster)
        parts.listening()
        stats = parts.overview.stats()
    there = {f"{route.method} {route.path}" for route in routes}
    documented = first_codes(table(README, "Route", "Answer"))
    assert sorted(documented) == sorted(there)
    assert first_codes(table(README, "Field", "Means")) == list(stats)


async def test_metrics_table() -> None:
    """Names, labels and every value of a label."""
    async with MemoryCluster(Memory()) as cluster:
        parts = assembled(cluster)
        body, _ = Metrics(parts.stats, parts.overview.gauges).render("")
    scraped: dict[str, dict[str, list[str]]] = {}
    for family in text_string_to_metric_families(body.decode()):
        labels: dict[str, dict[str, None]] = {}
        for sample in family.samples:
            for label, value in sample.labels.items():
                if label != "le":
                    labels.setdefault(label, {})[value] = None
        scraped[family.name + ("_total" if family.type == "counter" else "")] = {
            label: list(values) for label, values in labels.items()
        }
    ours = {name: labels for name, labels in scraped.items() if not name.startswith("process_")}
    documented = {}
    for name, labels_cell, _ in table(README, "Metric", "Labels", "Counts"):
        cells = [codes(cell) for cell in labels_cell.split(";")]
        documented[codes(name)[0]] = {cell[0]: cell[1:] for cell in cells if cell}
    assert documented == ours


def test_log_table() -> None:
    """Every event of every log line, with its level."""
    found: set[tuple[str, str]] = set()
    for path in (ROOT / "builder").rglob("*.py"):
        found |= {line for node in ast.walk(ast.parse(path.read_text())) for line in _log_lines(node)}
    for outcome, event in worker_pool._LOG_LINES.items():
        found.add((event, "error" if outcome is Outcome.FAILED else "info"))
    rows = table(README, "Event", "Level", "When")
    assert sorted((codes(row[0])[0], row[1]) for row in rows) == sorted(found)


def _log_lines(node: ast.AST) -> Iterator[tuple[str, str]]:
    match node:
        case ast.Call(
            func=ast.Attribute(value=ast.Name(id="log" | "_log") | ast.Attribute(attr="_log"), attr=level),
            args=[ast.Constant(value=str(event)), *_],
        ):
            yield event, "error" if level == "exception" else level


def test_tables_of_outcomes_decisions_and_reasons() -> None:
    assert first_codes(table(README, "Outcome", "Means")) == list(Outcome)
    decisions = table(README, "Under the name there is", "Then", "decision")
    assert {codes(row[2])[0] for row in decisions} == set(Decision)
    assert set(first_codes(table(README, "reason", "In words", "Way out"))) == set(FailureReason)


def test_fields_table() -> None:
    rows = table(README, "Field", "Allowed", "Left out")
    assert sorted(first_codes(rows)) == sorted(
        [*JobStart.model_fields, *(f"parameters.{f}" for f in Parameters.model_fields)]
    )
    said = {codes(name)[0]: f"{allowed} | {default}" for name, allowed, default in rows}
    assert said["parameters.priority"].endswith(f"| {job_start.DEFAULT_PRIORITY}")
    environment = said["parameters.environment"]
    assert f"up to {request.MAX_VARIABLES} names" in environment
    kibibytes = [size // 1024 for size in (request.MAX_VALUE_BYTES, request.MAX_ENVIRONMENT_BYTES)]
    assert "{} KiB each, {} KiB in all".format(*kibibytes) in environment
    assert set(codes(environment)) >= job_start.RESERVED_VARIABLES
    assert f"up to {MAX_BATCH} events" in README


def test_event_types() -> None:
    section = README.partition("Four event types")[2].partition("Any other type")[0]
    assert codes(section) == list(routing._USE_CASES)
    assert f"its source is `{routing.QUEUE_SOURCE}`" in README


@pytest.mark.parametrize("row", table(README, "You write", "Built is"), ids=lambda row: codes(row[0])[0])
def test_source_url_table(row: list[str]) -> None:
    source = parse_source(codes(row[0])[0], two_level_hosts=Build().two_level_hosts)
    said = {what: codes(part)[0] for part in row[1].split(", ") for what in [part.split(" `")[0]] if " `" in part}
    if "repository" not in said:
        assert source == Source(source.kind, codes(row[0])[0])
        return
    assert source.location.endswith(f"/{said['repository']}")
    assert (source.ref, source.sub_path) == (
        f"refs/heads/{said['branch']}" if "branch" in said else None,
        said.get("sub-path"),
    )


# --- commands ---------------------------------------------------------------------------------------------------------

COMMANDS = [command.__name__.rpartition(".")[2].replace("_", "-") for command in cli._COMMANDS]


def help_of(*command: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-m", "builder", *command, "--help"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return ran.stdout


def test_commands_table() -> None:
    assert first_codes(table(README, "Command", "What it does")) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """And one that the command itself understands."""
    with pytest.raises(SystemExit, match=r"^0$"):
        cli.main([command, "--help"])
    shown = capsys.readouterr().out
    example = shown.partition("example:\n")[2]
    assert example.strip().startswith(f"knative-lambda-builder {command}")
    assert set(re.findall(r"--[a-z-]+", example.partition("|")[0])) <= set(re.findall(r"--[a-z-]+", shown))


def test_exit_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "environ", plain_environment())
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(json.dumps(building.EXAMPLE))
    bad.write_text("{}")
    missing = str(tmp_path / "missing")
    assert cli.main(["render", str(good)]) == 0
    assert cli.main(["render", str(bad)]) == 1
    assert cli.main(["render", missing]) == 2
    assert cli.main(["check", "--cluster", "memory", "--config", missing]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert [row[0] for row in table(README, "Exit code", "Means")] == ["0", "1", "2", "130"]


# --- the picture of the architecture ----------------------------------------------------------------------------------


def test_layer_picture_is_what_import_linter_proves() -> None:
    (picture,) = blocks("ARCHITECTURE.md", "text")
    contract = tomllib.loads(read("pyproject.toml"))["tool"]["importlinter"]["contracts"][0]
    assert [re.split(r"\s{2,}", line)[0] for line in picture.text.splitlines()] == contract["layers"]


def test_architecture_tables() -> None:
    conflicts = table(ARCHITECTURE, "What exists under the name", "Decision", "What `builder/flow/ensure_job.py` does")
    assert {codes(row[1])[0] for row in conflicts} == {decision.name for decision in Decision}
    failures = table(ARCHITECTURE, "Kubernetes says", "Error", "What follows")
    named = {name for row in failures for name in codes(row[1])}
    assert named == {
        name for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, ClusterError) and kind is not ClusterError
    }  # fmt: skip
    constants = {name for row in failures for name in codes(row[2]) if name.isupper()}
    assert constants <= {*FailureReason.__members__, *Wait.__members__}
    for port, methods, _ in table(ARCHITECTURE, "Port", "Methods", "Implementations"):
        protocol = vars(getattr(ports, codes(port)[0]))
        assert codes(methods) == [name for name in protocol if not name.startswith("_")]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_paths_in_prose_exist(document: str) -> None:
    for path in re.findall(r"`((?:builder|tests|scripts|benchmarks|k8s|\.ci)/[\w./-]*)`", prose(document)):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        if re.match(r"https://", link):
            continue
        path, _, anchor = link.partition("#")
        target = ((ROOT / document).parent / path).resolve() if path else ROOT / document
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target.relative_to(ROOT).as_posix()), link


# --- the other documents ----------------------------------------------------------------------------------------------


def test_changelog_knows_this_version() -> None:
    changelog = read("CHANGELOG.md")
    assert "## [Unreleased]" in changelog
    assert builder.__version__ in changelog


def test_license_is_apache_2_whole() -> None:
    digest = hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest()
    assert digest == "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
