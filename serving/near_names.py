"""What may have been meant by a name that there is not? The words of every such error."""

import difflib
from collections.abc import Iterable

NEAR = 0.66  # `difflib` ratio: one letter of three swapped is near, half a word is not


def choices(name: str, known: Iterable[str], verb: str = "there are") -> str:
    """What follows `... does not exist;`: the near name, if one is, and all that there are."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=NEAR)
    meant = f"did you mean {near[0]!r}? " if near else ""
    return f"{meant}{verb} {', '.join(names) or 'none'}"
