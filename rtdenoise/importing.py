"""A published checkpoint as a bundle."""

from __future__ import annotations

import hashlib
import inspect
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import create_model

from rtdenoise import checkpoints, config
from rtdenoise.config import Settings
from rtdenoise.errors import ConfigError, FileFormatError
from rtdenoise.export import BundleFacts, export_bundle
from rtdenoise.methods import base
from rtdenoise.methods.base import Method, Network
from rtdenoise.normalize import Normalization, calibrate_range
from rtdenoise.train import movies

EIGHT_BITS = 255.0
"""Counts per unit of networks with fixed units that do not say otherwise: 8-bit frames / 255 (sheets A 5.5, 6.5)."""
MOVIE_FRAMES = 2000
"""Read from the start of a movie for its mean and sd; the training's own default."""
RANGE_EVERY = 30
"""One frame in so many shows the range of a movie: one a second of most. Engineering choice; all would fill the memory."""
SCALE = "scale"
"""The fact by which a loader is told counts per unit; it is given as a number of its own, not among the settings."""


@dataclass(slots=True, frozen=True)
class Counts:
    """What a person says about camera counts: numbers, or a movie to take mean and sd from; None for nothing."""

    offset: float | None = None
    scale: float | None = None
    movie: Path | None = None


def import_checkpoint(
    path: Path, method_name: str, out: Path, counts: Counts | None = None, settings: Sequence[str] = ()
) -> str:
    """Write the authors' weights in `path` as a bundle into `out`; returns one line about it.

    settings: facts that the file does not store, as `key=value`.
    Normalisation: a method whose networks eat frames of mean 0 and sd 1, or of counts from 0 to 1, gets a bundle that is
    calibrated on every field of view; `counts` only stands in where nothing can be calibrated (0 and 1 when not given),
    except for weights that live in counts (FAST), where it is needed. A method of fixed units gets a bundle that is never
    calibrated.
    Raises FileFormatError for a file that is no checkpoint of the method, ConfigError for a setting or number that does
    not fit, EngineError when the graph differs from the network.
    """
    method = base.load(method_name)
    if method.from_upstream is None:
        raise ConfigError(f"{method_name} has no published checkpoints to import")
    stored = checkpoints.read(path)
    facts = _facts(method, settings, stored.facts)
    normalization = _normalization(method, counts or Counts())
    if SCALE in _accepted(method):
        facts[SCALE] = normalization.scale
    try:
        network: Network = method.from_upstream(stored.tensors, **facts)
    except FileFormatError as error:
        raise FileFormatError(f"{path}: {error}") from None
    about = BundleFacts(out.name, normalization, method.upstream_units, provenance=_provenance(path, method, facts))
    bundle, report = export_bundle(method, network, out, about)
    worst = max(gap.worst for gap in report.gaps)
    window = bundle.manifest.window
    frames = f"{window.size} frames ({window.size - 1 - window.emits[-1]} later ones)"
    return (
        f"{bundle.path}: {method.title}, {frames}, worst error against PyTorch {worst:.1e} sd. {method.terms}".strip()
    )


def _accepted(method: Method) -> Mapping[str, inspect.Parameter]:
    """Keyword arguments of the method's loader."""
    if method.from_upstream is None:
        return {}
    parameters = inspect.signature(method.from_upstream).parameters
    return {name: p for name, p in parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}


def _facts(method: Method, settings: Sequence[str], stored: Mapping[str, Any]) -> dict[str, Any]:
    """Facts of the file, then those that a person set, checked against the types of the method's loader."""
    accepted = {name: parameter for name, parameter in _accepted(method).items() if name != SCALE}
    hints = typing.get_type_hints(method.from_upstream)
    fields: dict[str, Any] = {name: (hints[name], parameter.default) for name, parameter in accepted.items()}
    model = create_model("Facts", __base__=Settings, **fields)
    given = {name: value for name, value in stored.items() if name in accepted} | dict(map(_pair, settings))
    if given and not accepted:
        raise ConfigError(f"--set: {method.name} reads everything from the file; leave {', '.join(given)} out")
    facts = config.build(model, given, "--set")
    return facts.model_dump(include=facts.model_fields_set)


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise ConfigError(f"--set {text}: write it as key=value")
    return key, value


def _normalization(method: Method, counts: Counts) -> Normalization:
    if counts.movie and (counts.offset is not None or counts.scale is not None):
        raise ConfigError("give --movie, or --offset and --scale, not both")
    parameter = _accepted(method).get(SCALE)
    if method.upstream_units == "fixed":
        if counts.movie:
            raise ConfigError(f"{method.name} eats counts times a fixed factor, which no movie shows; give --scale")
        usual = EIGHT_BITS if parameter is None else float(parameter.default)
    elif counts.movie:
        movie = movies.from_file(counts.movie, MOVIE_FRAMES)
        return (
            calibrate_range(list(movie.counts[::RANGE_EVERY]))
            if method.upstream_units == "min-max"
            else movie.normalization
        )
    elif parameter is not None and counts.scale is None:
        raise ConfigError(
            f"the weights of {method.name} live in counts: give --scale (sd of the movies they were trained on) or --movie"
        )
    else:
        usual = 1.0
    return Normalization(counts.offset or 0.0, usual if counts.scale is None else counts.scale)


def _provenance(path: Path, method: Method, facts: Mapping[str, Any]) -> dict[str, Any]:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {
        "imported": path.name,
        "sha256": digest,
        "reference": method.reference,
        "facts": dict(facts),
        "terms": method.terms,
    }
