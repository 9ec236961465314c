"""What the viewer says in words and numbers. No window needed to test it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rtdenoise.viewer import theme
from rtdenoise.viewer.feed import Feed, Picture
from rtdenoise.wire import Message

OLD_MS, TOO_OLD_MS = 250.0, 1000.0
"""Age beyond the look-ahead that turns the number yellow, then red. Engineering choice: a person notices a quarter of a second."""
Number = tuple[str, str, str]
"""Value, details, colour."""


@dataclass(slots=True, frozen=True)
class Report:
    """Everything on the window that is not a picture or a trace."""

    state: str
    colour: str
    cells: dict[str, Number]
    raw_caption: str
    denoised_caption: str
    raw_notice: str
    denoised_notice: str
    model: str
    um_per_px: float | None


def report(feed: Feed) -> Report:
    """Put into words what `feed` knows now."""
    state, colour = _state(feed)
    picture = feed.picture
    shown = picture.denoised or picture.raw
    silent = f"FROZEN\nnothing for {feed.silent_s() or 0:.0f} s" if feed.stale() else ""
    um_per_px = shown.facts.um_per_px if shown else None
    return Report(
        state=state,
        colour=colour,
        cells={"AGE ON SCREEN": _age(feed), "FRAMES IN": _frames_in(feed), "SHOWN": _shown(feed), "LOST": _lost(feed)},
        raw_caption=_caption(
            picture.raw, ", ".join(word for word in (_other_frame(picture), _saturated(feed)) if word)
        ),
        denoised_caption=_caption(picture.denoised, _trust(picture.denoised)),
        raw_notice=silent,
        denoised_notice=silent or ("NOT DENOISING" if feed.raw_only() else ""),
        model=_model(feed, shown),
        um_per_px=um_per_px or (feed.start.um_per_px if feed.start else None),
    )


def _state(feed: Feed) -> tuple[str, str]:
    end = feed.ended()
    if end is not None:
        good = end.reason in ("ok", "stopped")
        lost = f"{end.n_dropped} lost" + (f" ({_table(end.dropped)})" if end.n_dropped else "")
        return f"END  {end.count} frames, {lost}: {end.reason}", theme.QUIET if good else theme.BAD
    if feed.stale():
        return f"NOTHING HAS ARRIVED FOR {feed.silent_s() or 0:.1f} s: the picture is frozen", theme.BAD
    if feed.silent_s() is None:
        if feed.refused():
            return f"{feed.raw_endpoint} does not let this computer in: {feed.refused()}", theme.BAD
        return (
            f"Waiting for frames from {feed.raw_endpoint}: is a run going? Start one with: rtdenoise run",
            theme.QUIET,
        )
    status = feed.status
    words = [status.mode, status.message] if status else []
    said = ": ".join(word for word in words if word)
    if feed.raw_only():
        return said if said.startswith("raw") else f"raw only: no denoised frame arrives. {said}", theme.WARN
    lookahead = _lookahead(feed)
    warned = bool(status and status.message) or said.startswith("raw")
    return "   ·   ".join(
        part for part in (said or "denoising", lookahead) if part
    ), theme.WARN if warned else theme.GOOD


def _lookahead(feed: Feed) -> str:
    if feed.start is None:
        return ""
    n, cost_ms = feed.start.lookahead_frames, feed.start.lookahead_ms
    if n == 0:
        return "no look-ahead"
    return f"look-ahead {n} frame{'s' * (n > 1)}" + (f" = {cost_ms:.0f} ms" if cost_ms is not None else "")


def _age(feed: Feed) -> Number:
    age_ms, percentiles = feed.age_ms(), feed.age_percentiles_ms()
    if age_ms is None or percentiles is None:
        return "-", "needs the status of a run on this computer", theme.QUIET
    if feed.ended():
        return "-", f"was {percentiles[0]:.0f} ms, p95 {percentiles[1]:.0f}", theme.QUIET
    shown_ms = age_ms if feed.stale() else percentiles[0]
    waited_ms = (feed.start.lookahead_ms or 0.0) if feed.start else 0.0
    colour = (
        theme.BAD if shown_ms > waited_ms + TOO_OLD_MS else theme.WARN if shown_ms > waited_ms + OLD_MS else theme.GOOD
    )
    return _duration(shown_ms), f"p95 {percentiles[1]:.0f} ms{_split(feed, percentiles[0], waited_ms)}", colour


def _split(feed: Feed, age_ms: float, waited_ms: float) -> str:
    """Where the time went: waiting for later frames, denoising, the wire and the screen."""
    denoised = feed.picture.denoised
    if denoised is None or feed.raw_only() or denoised.frame.stamp.t_out <= denoised.frame.stamp.t_in:
        return ""
    made_ms = (denoised.frame.stamp.t_out - denoised.frame.stamp.t_in) / 1e6
    return (
        f": wait {waited_ms:.0f}, engine {max(0.0, made_ms - waited_ms):.0f}, screen {max(0.0, age_ms - made_ms):.0f}"
    )


def _duration(ms: float) -> str:
    return f"{ms:.0f} ms" if ms < 10_000 else f"{ms / 1000:.0f} s"


def _frames_in(feed: Feed) -> Number:
    told = feed.ended() or feed.status
    per_s = feed.fps_raw.per_s
    if feed.stale() or feed.ended():
        per_s = 0.0
    elif feed.status and feed.status.fps_in:
        per_s = feed.status.fps_in
    known = f"{told.acquired} acquired, {told.delivered} sent, {told.in_flight} in flight" if told else ""
    return f"{per_s:.1f} /s", known, theme.TEXT


def _shown(feed: Feed) -> Number:
    return f"{feed.fps_shown.per_s:.1f} /s", f"{feed.passed_over} passed over by this window", theme.TEXT


def _lost(feed: Feed) -> Number:
    table = feed.lost()
    n_lost = sum(table.values())
    colour = theme.BAD if n_lost and feed.losing() else theme.WARN if n_lost else theme.GOOD
    return str(n_lost), _table(table) or "nothing", colour


def _table(dropped: dict[str, int]) -> str:
    return ", ".join(f"{n} {reason}" for reason, n in sorted(dropped.items(), key=lambda item: -item[1]) if n)


def _caption(message: Message | None, remark: str) -> str:
    if message is None:
        return "no frame yet"
    frame = message.frame
    seconds = (frame.stamp.t_src or frame.stamp.t_in) / 1e9
    size = f"{frame.pixels.shape[1]} x {frame.pixels.shape[0]} {frame.pixels.dtype.name}"
    parts = [f"frame {frame.stamp.src_frame}", f"{int(seconds // 60):02d}:{seconds % 60:04.1f}", size, remark.upper()]
    return "   ".join(part for part in parts if part)


def _other_frame(picture: Picture) -> str:
    return "" if picture.paired or picture.denoised is None else "not the same frame"


def _saturated(feed: Feed) -> str:
    """Share of raw pixels at the end of the detector's range."""
    if feed.picture.raw is None or feed.start is None or feed.start.saturation is None:
        return ""
    pixels = feed.picture.raw.frame.pixels
    n_saturated = np.count_nonzero(np.greater_equal(pixels, feed.start.saturation))
    percent = 100.0 * n_saturated / pixels.size
    return f"{percent:.2g} % saturated" if percent else ""


def _trust(denoised: Message | None) -> str:
    """Why this denoised frame is not like the others: window cut by a gap, warm-up, drift ..."""
    if denoised is None:
        return ""
    cut = [] if denoised.frame.complete else ["window cut"]
    return ", ".join([*cut, *denoised.flags])


def _model(feed: Feed, shown: Message | None) -> str:
    facts = shown.facts if shown else None
    parts = [facts.source, facts.model, facts.backend] if facts else []
    return "   ·   ".join(part for part in parts if part)
