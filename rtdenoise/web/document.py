"""The page as one document: nothing is fetched from anywhere, and the browser is told to refuse if something tried."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from importlib.resources import files

from rtdenoise.viewer import theme

_PARTS = files("rtdenoise.web") / "page"


@dataclass(slots=True, frozen=True)
class Document:
    """The page and the content security policy that goes with exactly these bytes."""

    html: str
    policy: str


def document() -> Document:
    """Put style and script into the page; both are named in the policy by their hash, so nothing else can run."""
    style, script = _read("view.css"), _read("view.js")
    for name in ("BACKGROUND", "PANEL", "LINE", "TEXT", "QUIET", "RAW", "DENOISED", "BAD"):
        style = style.replace(f"${name}", getattr(theme, name))
    html = _read("view.html").replace("/*STYLE*/", style).replace("/*SCRIPT*/", script)
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return Document(html, policy)


def _read(name: str) -> str:
    return (_PARTS / name).read_text(encoding="utf-8").replace("\r\n", "\n")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
