"""What a weights file holds for us."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(slots=True, frozen=True)
class Checkpoint:
    """tensors: by the names the file gives them, on the CPU.  facts: what `from_upstream` may ask for beyond them, where
    the file says it.
    """

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, int | float | str | bool] = field(default_factory=dict)
