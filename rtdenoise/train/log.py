"""What a training writes down as it goes: a log beside its checkpoint, and at the end a curve to keep."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from rtdenoise import machine
from rtdenoise.train import devices
from rtdenoise.train.loop import Training

PACKAGES = ("rtdenoise", "torch", "lightning-fabric", "numpy")

Entry = Mapping[str, Any]


@dataclass
class RunLog:
    """One entry per validation, in a JSON file.

    `step`, `loss` (training, smoothed), `learning_rate`, `seconds` of training so far; `validation_loss` where frames
    are held out, and `gain_db` per movie of validate_on.
    """

    path: Path
    entries: list[Entry] = field(default_factory=list)

    def begin(self, training: Training) -> None:
        """Take up what was written up to the step that `training` is at."""
        if training.step and self.path.is_file():
            entries = json.loads(self.path.read_text(encoding="utf-8"))
            self.entries = [entry for entry in entries if entry["step"] <= training.step]

    def add(self, training: Training, validation_loss: float | None, gain_db: Mapping[str, float]) -> None:
        """One entry more, written at once."""
        entry: dict[str, Any] = {"step": training.step, "loss": training.smooth_loss}
        if validation_loss is not None:
            entry["validation_loss"] = validation_loss
        if gain_db:
            entry["gain_db"] = {name: round(gain, 3) for name, gain in gain_db.items()}
        entry |= {"learning_rate": training.optimizer.param_groups[0]["lr"], "seconds": round(training.seconds, 1)}
        self.entries = [*(e for e in self.entries if e["step"] < training.step), entry]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(_lines(self.entries) + "\n", encoding="utf-8", newline="\n")

    def last(self) -> str:
        """The newest entry in a few words."""
        if not self.entries:
            return ""
        entry = self.entries[-1]
        words = [f"validation {entry['validation_loss']:.4f}"] if "validation_loss" in entry else []
        gains = " ".join(f"{gain:.1f}" for gain in entry.get("gain_db", {}).values())
        return "  ".join([*words, f"gain {gains} dB"] if gains else words)


def write_curve(path: Path, training: Training, entries: Sequence[Entry]) -> None:
    """A JSON file about the whole training: its curve (see `RunLog`), how long it took, on what, with which versions.

    kept_step: the step whose weights are in the bundle.
    """
    fabric, settings = training.fabric, training.recipe.train
    facts: dict[str, Any] = {
        "name": training.recipe.name,
        "steps": training.step,
        "kept_step": training.kept_step,
        "seconds": round(training.seconds, 1),
        "device": devices.name(fabric),
        "processes": fabric.world_size,
        "threads": torch.get_num_threads(),
        "precision": settings.precision,
        "versions": machine.versions(PACKAGES),
    }
    head = json.dumps(facts, indent=1).removesuffix("\n}")
    path.write_text(f'{head},\n "curve": {_lines(entries)}\n}}\n', encoding="utf-8", newline="\n")


def _lines(entries: Sequence[Entry]) -> str:
    """A JSON list with one entry a line."""
    return "[\n" + ",\n".join("  " + json.dumps(entry) for entry in entries) + "\n ]" if entries else "[]"
