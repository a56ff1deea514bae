"""The rules of the house that a machine can check, beside what ruff, mypy and import-linter do (CONTRIBUTING.md)."""

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "builder").rglob("*.py"))

LONGEST_FUNCTION = 45
"""Lines, signature and docstring included: "about forty"."""
LONGEST_MODULE = 300
LONG_FOR_A_REASON: dict[str, str] = {}
"""Module → why it is better whole."""

# In brackets, so that this file is not its own first find.
_REGISTRIES = (
    r"pypi[.]org|files[.]pythonhosted[.]org|proxy[.]golang[.]org|sum[.]golang[.]org|registry[.]npmjs|"
    r"registry[.]yarnpkg|deb[.]debian[.]org|security[.]debian[.]org|archive[.]ubuntu[.]com|static[.]crates[.]io|"
    r"index[.]crates[.]io|rubygems[.]org|repo[.]maven"
)
# Not inside base64, as in go.sum.
_MACHINE_PATHS = r"(?<![A-Za-z0-9+/])/(?:[r]oot|[w]ork|[h]ome/[a-z]+|[U]sers/[A-Za-z]+)/"
_LEFT_FOR_LATER = r"\b(?:[T]ODO|[F]IXME|[X]XX|[H]ACK)\b"


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    assert function.end_lineno is not None
    return function.end_lineno - function.lineno + 1


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_no_function_is_long() -> None:
    """What grows beyond this has two worries in it."""
    long = {f"{name(path)}:{one.name}": length(one) for path in SOURCES for one in functions(path)}
    assert {where: lines for where, lines in long.items() if lines > LONGEST_FUNCTION} == {}


def test_no_module_is_long_without_a_reason() -> None:
    lines = {name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert {module for module, size in lines.items() if size > LONGEST_MODULE} == set(LONG_FOR_A_REASON)


@pytest.fixture(scope="module")
def files() -> dict[str, str]:
    """What is, or is about to be, in the repository."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("no Git repository: nothing says which files are the project's")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    paths = [ROOT / path for path in listed.stdout.split("\0") if path]
    return {name(path): path.read_text(encoding="utf-8", errors="replace") for path in paths if path.is_file()}


@pytest.mark.parametrize(
    "forbidden",
    [
        pytest.param(_REGISTRIES, id="host of a package registry"),
        pytest.param(_MACHINE_PATHS, id="path of somebody's machine"),
        pytest.param(_LEFT_FOR_LATER, id="left for later"),
    ],
)
def test_no_file_has_a(forbidden: str, files: dict[str, str]) -> None:
    found = [
        f"{file}:{number}: {match[0]}"
        for file, text in files.items()
        for number, line in enumerate(text.splitlines(), start=1)
        if (match := re.search(forbidden, line))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("forbidden", "text"),
    [
        (_REGISTRIES, "https://" + "pypi" + ".org/simple"),
        (_MACHINE_PATHS, "cd " + "/" + "root/x"),
        (_MACHINE_PATHS, '"' + "/" + 'home/me/x"'),
        (_LEFT_FOR_LATER, "# " + "TO" + "DO later"),
    ],
)
def test_what_is_forbidden_would_be_found(forbidden: str, text: str) -> None:
    assert re.search(forbidden, text)


def test_the_image_has_the_packages_that_are_tested() -> None:
    """Its lock is a part of the developers': the same versions, the same hashes."""
    tested, shipped = (
        {block for block in re.split(r"\n(?=\S)", (ROOT / "scripts" / name).read_text()) if "==" in block}
        for name in ("requirements.txt", "requirements-image.txt")
    )
    pins = [{re.sub(r"\n\s+#.*", "", block) for block in blocks} for blocks in (tested, shipped)]
    assert pins[1]
    assert pins[1] <= pins[0]
