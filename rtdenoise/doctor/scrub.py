"""Takes out of a text what is nobody's business: secrets, and who and where somebody is."""

from __future__ import annotations

import getpass
import platform
import re
from dataclasses import dataclass
from pathlib import Path

REMOVED = "<removed>"
_SECRET = re.compile(
    r"""(?ix) ( (?<![\w-]) ["']? [\w-]{0,40}?
    (?: secret | passw(?:or)?d | passphrase | token | credential | (?:api|private)[_-]?key )
    [\w-]{0,40} ["']? \s* [:=] \s* ) (?: "[^"]*" | '[^']*' | [^\s,;&}\])]+ )""",
)
_Z85 = r"0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#"
_CURVE_KEY = re.compile(rf"(?<![{_Z85}])[{_Z85}]{{40}}(?![{_Z85}])")
"""A key of CURVE as text: 40 characters of ZeroMQ's Z85 alphabet (ZeroMQ RFC 32)."""
_N_DIFFERENT = 24
"""Fewer different characters than this are no key: of 400,000 drawn at random 11 had fewer. Engineering choice."""
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
    """Checksums, words and paths repeat themselves; of a key's 40 characters, drawn from 85, about 32 differ."""
    return REMOVED if len(set(found[0])) >= _N_DIFFERENT else found[0]
