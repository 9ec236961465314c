"""Rows that several tests share."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median
from typing import Any

from soaks.bins import percentile_ms
from soaks.ear import Heard
from soaks.report import Row, at_most, none_of


def heard_part(heard: Heard) -> dict[str, Any]:
    """What of a listener's last word is kept."""
    names = ("joined_at", "received", "skipped", "missed", "stray", "bad", "wrong", "disorder", "n_series")
    return {name: getattr(heard, name) for name in (*names, "n_status", "unbalanced")}


def nothing_lost(name: str, parts: Iterable[dict[str, Any]]) -> list[Row]:
    """A healthy listener: every frame, once, in order, each pixel of the frame that the header names."""
    told = [part["heard"][name] for part in parts if name in part.get("heard", {})]
    received = sum(h["received"] for h in told)
    return [
        none_of(f"{name} listener: frames lost", sum(h["missed"] for h in told), received, "frames"),
        none_of(
            f"{name} listener: frames wrong, stray, bad or out of order",
            sum(h["wrong"] + h["stray"] + h["bad"] + h["disorder"] for h in told),
            received,
            "frames",
        ),
    ]


def accounts(parts: Iterable[dict[str, Any]]) -> Row:
    """Nobody may ask where a frame went."""
    lines = list(parts)
    return none_of(
        "frames unaccounted for",
        sum(abs(int(part["unaccounted"])) for part in lines),
        sum(int(part["acquired"]) for part in lines),
        "acquired frames",
    )


SEND_RATIO, SEND_P99_MS = 1.5, 1.0


def sent_rows(phases: Iterable[dict[str, Any]]) -> list[Row]:
    """What handing a frame to the publisher costs while a subscriber misbehaves, beside what it costs without."""
    lines = list(phases)
    before = percentile_ms((part["send_without"] for part in lines), 99)
    during = percentile_ms((part["send_with"] for part in lines), 99)
    if before is None or during is None:
        return [Row(name="send p99", limit=f"<= {SEND_RATIO:g} x", measured="not measured", met=False)]
    ratios = [each for part in lines if (each := _ratio(part)) is not None]
    ratio = at_most("send p99, beside that without", SEND_RATIO, [during / before], "x", 2)
    spread = (min(ratios), median(ratios), max(ratios)) if ratios else None
    return [
        ratio.model_copy(update={"spread": spread, "measured": f"{ratio.measured}: {during:.2f} and {before:.2f} ms"})
    ]


def send_p99(phases: Iterable[dict[str, Any]]) -> Row:
    """The same in ms."""
    found = percentile_ms((part["send_with"] for part in phases), 99)
    return at_most("send p99", SEND_P99_MS, [] if found is None else [found], "ms", 2)


def _ratio(part: dict[str, Any]) -> float | None:
    before, during = (percentile_ms([part[name]], 99) for name in ("send_without", "send_with"))
    return None if before is None or during is None else during / before
