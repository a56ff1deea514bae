"""Reads the settings: flags over ``BUILDER_…`` variables over ``PORT`` over one YAML file over the defaults.

Every mistake is found in one go and named by its full key, whatever source it came from.
"""

import difflib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import SecretStr, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from builder.errors import Problem, SettingsError
from builder.setting_types import Section
from builder.settings import Settings

PREFIX = "BUILDER_"
CONFIG_VARIABLE = "BUILDER_CONFIG"

_SECRET = (SecretStr, SecretStr | None)
"""What is never shown, not even where it is wrong."""

_SERVICE_LINK = re.compile(r"BUILDER_(SERVICE_(HOST|PORT)(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)\w*)?)")
"""What Kubernetes puts into every Pod beside a Service of the name ``builder``. No settings, and nobody's mistake."""


def load(environ: Mapping[str, str], config: str | None = None, flags: Mapping[str, object] | None = None) -> Settings:
    """The settings in force.

    ``config`` is the path of the YAML file (else ``BUILDER_CONFIG`` names it). ``flags`` maps full keys such as
    ``server.port`` to values that a person typed; None means not typed.

    Raises:
        SettingsError: names every wrong key, variable or file.
    """
    path = environ.get(CONFIG_VARIABLE) if config is None else config
    tree = _read_file(path) if path else {}
    if port := environ.get("PORT"):
        _put(tree, ("server", "port"), _from_text(port, int))
    known = dict(_leaves(Settings))
    _apply_environment(tree, environ, known)
    for key, value in (flags or {}).items():
        if value is not None:
            _put(tree, tuple(key.split(".")), value)
    return validate(tree)


def validate(tree: Mapping[str, object]) -> Settings:
    """Settings from plain data in the file's spelling. Nothing is converted: ``true`` is no number, nor is ``"5"``."""
    try:
        return Settings.model_validate_json(json.dumps(tree, default=str), strict=True)
    except ValidationError as exc:
        raise SettingsError([_explain(error) for error in exc.errors()]) from exc


def variable(key: tuple[str, ...]) -> str:
    """A key's environment variable: ``BUILDER_SERVER__PORT`` for ``server.port``."""
    return PREFIX + "__".join(_snake(part).upper() for part in key)


def _read_file(path: str) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsError([Problem("--config", f"cannot read {path}: {exc}")]) from exc
    except yaml.YAMLError as exc:
        raise SettingsError([Problem("--config", f"{path} is no YAML: {exc}")]) from exc
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise SettingsError([Problem("--config", f"{path} must hold keys and values, not a {type(tree).__name__}")])
    return tree


def _apply_environment(tree: dict[str, Any], environ: Mapping[str, str], known: Mapping[tuple[str, ...], Any]) -> None:
    by_variable = {variable(key): key for key in known}
    problems = []
    ours = (name for name in environ if name.startswith(PREFIX) and name != CONFIG_VARIABLE)
    for name in sorted(name for name in ours if not _SERVICE_LINK.fullmatch(name)):
        if name in by_variable:
            key = by_variable[name]
            _put(tree, key, _from_text(environ[name], known[key]))
        else:
            problems.append(Problem(name, "no such setting" + _suggest(name, by_variable)))
    if problems:
        raise SettingsError(problems)


def _leaves(section: type[Section], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, field in section.model_fields.items():
        key = (*above, field.alias or name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from _leaves(field.annotation, key)
        else:
            yield key, field.annotation


def _from_text(text: str, annotation: Any) -> object:
    """A variable's text as the type that its key wants; where it does not fit, as text, for validation to name."""
    try:
        if get_origin(annotation) in (tuple, dict, list):
            return json.loads(text)
        for kind in _kinds(annotation) & {int, bool}:
            return TypeAdapter(kind).validate_strings(text)
    except ValueError:
        pass
    return text


def _kinds(annotation: Any) -> set[Any]:
    """The types of ``Annotated[int, …] | None``."""
    parts = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return {get_args(part)[0] if get_origin(part) is Annotated else part for part in parts}


def _put(tree: dict[str, Any], key: tuple[str, ...], value: object) -> None:
    for part in key[:-1]:
        below = tree.get(part)
        if not isinstance(below, dict):
            below = {}
            tree[part] = below
        tree = below
    tree[key[-1]] = value


def _explain(error: ErrorDetails) -> Problem:
    key = tuple(str(part) for part in error["loc"])
    path = ".".join(key)
    if error["type"] == "extra_forbidden":
        siblings = [".".join(known) for known, _ in _leaves(Settings)]
        return Problem(path, "no such setting" + _suggest(path, siblings))
    message = error["msg"].removeprefix("Value error, ")
    if key and error["type"] != "missing" and not isinstance(error["input"], dict):
        shown = "" if dict(_leaves(Settings)).get(key) in _SECRET else f"is {error['input']!r}; "
        message += f" ({shown}variable {variable(key)})"
    return Problem(path, message)


def _suggest(word: str, known: Mapping[str, object] | list[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _snake(word: str) -> str:
    return "".join(f"_{char}" if char.isupper() else char for char in word)
