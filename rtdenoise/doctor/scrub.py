"""Takes out of a text what is nobody's business: secrets, and who and where somebody is."""

from __future__ import annotations

import getpass
import platform
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

REMOVED = "<removed>"
_SECRET = re.compile(
    r"""(?ix) ( ["']? [\w-]* (?: secret | passw(?:or)?d | passphrase | token | credential | (?:api|private)[_-]?key ) [\w-]* ["']?
    \s* [:=] \s* ) (?: "[^"]*" | '[^']*' | [^\s,;&}\])]+ )""",
)
_Z85 = r"0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#"
_CURVE_KEY = re.compile(rf"(?<![{_Z85}])[{_Z85}]{{40}}(?![{_Z85}])")
"""A key of CURVE as text: 40 characters of ZeroMQ's Z85 alphabet (ZeroMQ RFC 32)."""
_LOGIN_IN_URL = re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)")
_HOMES = re.compile(r"(?i)(?:\b[a-z]:)?(?:\\\\|\\|/)(?:users|home|documents and settings)(?:\\\\|\\|/)[^\\/\s\"':]+")
_SHARED_NAMES = {"root", "user", "admin", "administrator", "lab", "microscope", "runner", "public", "localhost"}
"""Names that identify nobody, and that are words of other texts as well."""


@dataclass(slots=True, frozen=True)
class Scrubber:
    """Replaces the home folder by ~, names of user and computer by what they are, and secrets by `<removed>`."""

    home: str
    user: str
    computer: str

    @classmethod
    def of_this_user(cls) -> Scrubber:
        """Whoever runs this program here."""
        try:
            user = getpass.getuser()
        except (KeyError, OSError):  # an account without a name, as in containers
            user = ""
        return cls(str(Path.home()), user, platform.node())

    def __call__(self, text: str) -> str:
        """The text without them."""
        text = _SECRET.sub(_without_value, text)
        text = _LOGIN_IN_URL.sub(REMOVED, text)
        text = _CURVE_KEY.sub(_unless_plain, text)
        for home in self._spellings():
            text = re.sub(rf"(?i){re.escape(home)}(?![\w.-])", "~", text)
        text = _HOMES.sub("~", text)
        for name, stands_for in ((self.user, "<user>"), (self.computer, "<computer>")):
            if len(name) > 2 and name.lower() not in _SHARED_NAMES:
                text = re.sub(rf"(?i)(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", stands_for, text)
        return text

    def _spellings(self) -> list[str]:
        """The home folder as paths, JSON and Python write it, longest first."""
        home = self.home.rstrip("\\/")
        if not home:
            return []
        return sorted({home, home.replace("\\", "\\\\"), home.replace("\\", "/")}, key=len, reverse=True)


def _without_value(found: re.Match[str]) -> str:
    """JSON stays JSON."""
    quoted = found[0].startswith('"') or found[0].endswith('"')
    return f'{found[1]}"{REMOVED}"' if quoted else f"{found[1]}{REMOVED}"


def _unless_plain(found: re.Match[str]) -> str:
    """A key has letters of both cases and digits; checksums, words and most paths have not."""
    text = found[0]
    has: list[Callable[[str], bool]] = [str.isupper, str.islower, str.isdigit]
    return REMOVED if all(any(kind(c) for c in text) for kind in has) else text
