"""What may have been meant by a name that there is not? The words of every such error."""

import difflib
from collections.abc import Iterable

NEAR = 0.66  # `difflib` ratio: one letter of three swapped is near, half a word is not


def near(name: str, known: Iterable[str]) -> str:
    """The known name that may have been meant; empty when none is near."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=NEAR)), "")


def choices(name: str, known: Iterable[str], verb: str = "there are") -> str:
    """What follows `... does not exist;`: the near name, if one is, and all that there are."""
    names = list(known)
    meant = f"did you mean {one!r}? " if (one := near(name, names)) else ""
    return f"{meant}{verb} {', '.join(names) or 'none'}"
