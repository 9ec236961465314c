"""Frozen settings models; unknown keys are errors that name the known ones."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from rtdenoise.errors import ConfigError


class Settings(BaseModel):
    """Base of every settings model: frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


S = TypeVar("S", bound=BaseModel)


def build(model: type[S], values: Mapping[str, Any], where: str) -> S:
    """Validate `values` against `model`. Raises ConfigError with one line that starts with `where`."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(f"{where}: {_first_problem(model, error)}") from None


def load(model: type[S], path: Path) -> S:
    """Read a TOML file into `model`. Raises ConfigError naming file and key."""
    if not path.is_file():
        raise ConfigError(f"{path}: no such file")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None
    return build(model, values, str(path))


def _first_problem(model: type[BaseModel], error: ValidationError) -> str:
    # A misspelt key is the cause of the missing one, so it comes first.
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    *parents, key = [str(part) for part in first["loc"]] or ["settings"]
    section = f"[{'.'.join(parents)}]: " if parents else ""
    if first["type"] == "extra_forbidden":
        return f"{section}unknown {key}; known: {', '.join(_known(model, parents))}"
    return f"{section}{key}: {first['msg']}"


def _known(model: type[BaseModel], parents: list[str]) -> list[str]:
    for parent in parents:
        field = model.model_fields.get(parent)
        inner = field.annotation if field else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return []
        model = inner
    return list(model.model_fields)


def pair(text: str, option: str) -> tuple[str, Any]:
    """`key=value` as given after `option` on the command line; the value as JSON where it is that, else as text. Raises ConfigError."""
    key, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"{option} {text}: write it as key=value")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value
