"""Which phrasings are taught? `phrases/*.txt`, a sentence and its code on each line.

    {T1} launches {A1}, expect {X1} their {C1} => expect T1 C1 X1 from A1

Slots are written as the marks that stand in their place. `ask` is the code of what is unclear, not
possible, or no request. Blank lines and lines that begin with `#` say nothing.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

from hmas_agents.intent.change import ChangeError
from hmas_agents.intent.code import ASK, changes_of

PHRASES = Path(__file__).parent / "phrases"
SLOT = re.compile(r"\{([TCADSX]\d)\}")
MARK = re.compile(r"[TCADSX]\d+")
_HELD_OUT = 20  # one in so many


class PhrasingError(ValueError):
    """A line that cannot be taught: `FILE:LINE: what is wrong`."""


@dataclass(frozen=True, slots=True)
class Phrasing:
    """A sentence with slots, and its code."""

    text: str
    code: str

    @property
    def is_ask(self) -> bool:
        """It is to be asked back about."""
        return self.code == ASK

    @property
    def is_held_out(self) -> bool:
        """It is kept for judging what was taught; the same ones whatever else is in the files."""
        return crc32(self.text.encode()) % _HELD_OUT == 0


def read_phrasings(folder: Path = PHRASES) -> list[Phrasing]:
    """Every phrasing of a folder, without repetitions.

    Raises:
        PhrasingError: a line that cannot be taught, or none at all.
    """
    found = {
        phrasing: None
        for path in sorted(folder.glob("*.txt"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if line.strip() and not line.startswith("#")
        for phrasing in [_phrasing(f"{path}:{number}", line)]
    }
    if not found:
        raise PhrasingError(f"{folder}: no phrasings")
    return list(found)


def _phrasing(place: str, line: str) -> Phrasing:
    text, arrow, code = (part.strip() for part in line.rpartition("=>"))
    if not (text and arrow):
        raise PhrasingError(f"{place}: not of the form SENTENCE => CODE")
    slots = SLOT.findall(text)
    if "{" in SLOT.sub("", text):
        raise PhrasingError(f"{place}: a slot is {{T1}}, or with another of the letters TCADSX")
    try:
        changes_of(code, {slot: 1.0 if slot[0] in "DSX" else "00:00" for slot in slots}, "00:00")
    except ChangeError as error:
        raise PhrasingError(f"{place}: {error}") from error
    return Phrasing(text, code)
