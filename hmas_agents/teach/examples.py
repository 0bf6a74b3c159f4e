"""What does the model learn from? Texts drawn from phrasings, marked as texts of operators are.

A text is one phrasing or several joined, with names of a contract of its own, numbers in their many
forms, courtesies, typos and capitals. Some are spoiled so that one has to ask back: a name that the
contract lacks, an hour without a half of the day, a condition, a question.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from hmas_agents.intent.change import Answer, ChangeError, Names, Question, read_answer
from hmas_agents.intent.code import ASK, changes_of
from hmas_agents.intent.marks import MarkedText, Value, mark
from hmas_agents.teach import forms
from hmas_agents.teach.phrasings import MARK, SLOT, Phrasing

_ASK, _SEVERAL, _SPOILED, _MISTYPED = 0.15, 0.25, 0.08, 0.15  # shares of what is drawn
_TRIES = 200  # of one phrasing; most are drawn at once
_JOINTS = ("; ", "; ", ", ", ". ", ". ", " and ", ", and ", " / ", " - ", ", also ", ". then ")
_BEFORE = (
    "please ", "pls ", "hi, ", "hello, ", "hey team, ", "ok so ", "ok: ", "morning all. ",
    "quick one: ", "fyi ", "as discussed: ", "update: ", "one more thing: ", "we decided: ",
    "sorry for the noise. ", "from the night shift: ", "i just spoke with sales. ", "can you ",
    "could you please ", "now ",
    "the customer called. ", "planned work. ", "right now ", "i'd like you to ", "todo: ", "@hmas ",
)  # fmt: skip
_AFTER = (
    " please", " pls", " thanks", " thx", "!", ".", ".", ", thank you", ". cheers", " :)",
    ", as agreed", ". the customer knows about it", ", sales asked for it", ", that is all",
    ". i will be at my desk", " - approved by the duty manager", ", no need to call me",
)  # fmt: skip
# Who it is about may be said in any of these ways, whatever is said of them.
_ONE = ("{T1}", "{C1}", "{T1} {C1}", "{T1}'s {C1}", "{C1} of {T1}", "{C1} from {T1}")
# And so may the time; at the end of the text, or before it.
_WHEN = (
    ("until {A1}", "until A1"), ("till {A1}", "until A1"), ("up to {A1}", "until A1"),
    ("before {A1}", "until A1"), ("through {A1}", "until A1"), ("not longer than {A1}", "until A1"),
    ("from {A1}", "from A1"), ("from {A1} on", "from A1"), ("as of {A1}", "from A1"),
    ("starting {A1}", "from A1"), ("beginning at {A1}", "from A1"), ("after {A1}", "from A1"),
    ("from {A1} to {A2}", "from A1 until A2"), ("between {A1} and {A2}", "from A1 until A2"),
    ("{A1} to {A2}", "from A1 until A2"), ("{A1} - {A2}", "from A1 until A2"),
    ("from {A1} until {A2}", "from A1 until A2"), ("for {D1}", "for D1"),
    ("for the next {D1}", "for D1"), ("for the coming {D1}", "for D1"), ("over {D1}", "for D1"),
    ("the next {D1}", "for D1"), ("for about {D1}", "for D1"), ("during the next {D1}", "for D1"),
    ("in {D1}", "from +D1"), ("starting in {D1}", "from +D1"), ("{D1} from now", "from +D1"),
    ("in {D1} for {D2}", "from +D1 for D2"), ("in {D1} until {A1}", "from +D1 until A1"),
    ("from {A1} for {D1}", "from A1 for D1"), ("at {A1} for {D1}", "from A1 for D1"),
)  # fmt: skip
_SAID_WHEN = re.compile(
    r",? (until|till|from|for|for the next|starting at|starting|between) \{[AD]1\}"
    r"( (to|until|and|till) \{A2\})?$"
)
_IF = (
    "if the queue grows, ", "if it gets busy ", "once things calm down ", "when load is high, ",
    "in case of trouble ", "as soon as the incident is over ", "unless somebody objects, ",
    "if needed ", "only if they complain: ", "depending on the load, ", "when the batch is done, ",
)  # fmt: skip
_ASKED = (
    "should we ", "would it help to ", "what if ", "why not ", "do you think ", "is it true that ",
    "who said ", "what happens with: ", "did we ", "shall i ", "what would it cost: ", "how about ",
)  # fmt: skip
_OPEN = (
    "maybe ", "i am not sure yet, but ", "perhaps ", "we may ", "i wonder about: ",
    "we were thinking about: ", "draft, not decided: ", "yesterday: ", "last week we had: ",
)  # fmt: skip
_SOME_TIME = (
    "tonight", "tomorrow", "lunch", "the weekend", "next week", "later", "friday", "the afternoon",
    "the end of the day", "some time", "about six", "noon-ish", "the evening peak",
    "monday morning",
)  # fmt: skip
_SOME = ("a bit", "some", "a lot", "somewhat", "slightly", "much", "a little", "several", "most")


@dataclass(frozen=True, slots=True)
class Example:
    """A text at a time under a contract, and what the model has to write of it."""

    text: str
    now: str
    names: Names
    marked: MarkedText
    code: str

    @property
    def answer(self) -> Answer:
        """The changes that the code stands for, or a question."""
        changes = changes_of(self.code, self.marked.values, self.now)
        reply = changes if changes else {"question": "?"}
        return read_answer(reply, self.names, self.now)


class Examples:
    """Draws examples of these phrasings, the same ones for the same seed."""

    def __init__(self, phrasings: Sequence[Phrasing], seed: int) -> None:
        self._rng = Random(seed)
        self._asks = [each for each in phrasings if each.is_ask]
        self._clear = [each for each in phrasings if not each.is_ask]
        self._joinable = [each for each in self._clear if re.search(r" [TC]\d", each.code)]

    def draw(self) -> Example:
        """The next example: varied, joined, spoiled and mistyped at random."""
        rng = self._rng
        while True:
            phrasing = self._drawn()
            if rng.random() < 0.35:
                phrasing = _in_company(phrasing, rng)
            if rng.random() < _MISTYPED:
                phrasing = _mistyped(phrasing, rng)
            if example := _filled(phrasing, rng):
                return example

    def _drawn(self) -> Phrasing:
        rng = self._rng
        if not self._clear or (self._asks and rng.random() < _ASK):
            return rng.choice(self._asks)
        phrasing = _varied(rng.choice(self._clear), rng)
        if self._joinable and rng.random() < _SEVERAL:
            others = rng.choices(self._joinable, k=1 + (rng.random() < 0.25))
            phrasing = _joined([phrasing, *(_varied(each, rng) for each in others)], rng)
        return _spoiled(phrasing, rng) if rng.random() < _SPOILED else phrasing

    def plain(self, phrasing: Phrasing) -> Example:
        """An example of one phrasing as it stands.

        Raises:
            ChangeError: no contract and no numbers make it readable.
        """
        for _ in range(_TRIES):
            if example := _filled(phrasing, self._rng):
                return example
        raise ChangeError(f"no text of this phrasing can be read: {phrasing.text}")


def _varied(clear: Phrasing, rng: Random) -> Phrasing:
    """The same said of somebody else, or for another time, where one change is all there is."""
    text, code = clear.text, clear.code
    if "; " in code:
        return clear
    slots = SLOT.findall(text)
    who = [slot for slot in slots if slot[0] in "TC"]
    if who in (["T1"], ["C1"]) and who[0] in code and rng.random() < 0.5:
        is_owner = f"{{{who[0]}}}'" in text or f"{{{who[0]}}}s" in text
        whole = rng.choice(_ONE[:3] if is_owner else _ONE)
        text = text.replace(f"{{{who[0]}}}", whole)
        named = " ".join(sorted(SLOT.findall(whole), reverse=True))
        code = code.replace(who[0], named)
    if rng.random() < 0.3 and (said := _SAID_WHEN.search(text)):
        when = re.search(r"( from \S+)?( until \S+| for \S+)?$", code)
        if when and sorted(MARK.findall(when[0])) == sorted(SLOT.findall(said[0])):
            text, code = text[: said.start()], code[: when.start()]
    is_timed = re.search(r" (from|until|for) ", code) or re.search(r"\{[AD]", text)
    if not is_timed and rng.random() < 0.45:
        words, when_code = rng.choice(_WHEN)
        text, code = text.rstrip(".!"), f"{code} {when_code}"
        if rng.random() < 0.35:
            text = words + rng.choice((", ", " ", ": ")) + text
        else:
            text += rng.choice((" ", " ", " ", ", ")) + words
    return Phrasing(text, code)


def _joined(several: Sequence[Phrasing], rng: Random) -> Phrasing:
    """One text of several; each with slots of its own, but now and then the same name."""
    text, codes = several[0].text, [several[0].code]
    for each in several[1:]:
        taken = {letter: len(set(re.findall(rf"\{{({letter}\d)", text))) for letter in "TCADSX"}
        if rng.random() < 0.25:
            taken["C"] = 0
        if rng.random() < 0.15:
            taken["T"] = 0

        def renamed(mark: re.Match[str], taken: dict[str, int] = taken) -> str:
            return f"{mark[0][0]}{int(mark[0][1:]) + taken[mark[0][0]]}"

        def slotted(slot: re.Match[str], renamed: Callable[..., str] = renamed) -> str:
            return "{" + MARK.sub(renamed, slot[1]) + "}"

        text = text.rstrip(".!") + rng.choice(_JOINTS) + SLOT.sub(slotted, each.text)
        codes.append(MARK.sub(renamed, each.code))
    return Phrasing(text, "; ".join(codes))


def _spoiled(clear: Phrasing, rng: Random) -> Phrasing:
    """A text that leaves something open."""
    said = sorted({slot for slot in SLOT.findall(clear.text) if slot in clear.code})
    slot = rng.choice(said) if said else ""
    way = rng.random()
    text = clear.text
    if slot and way < 0.6:
        text = text.replace(f"{{{slot}}}", _open_slot(slot, rng))
    elif way < 0.75:
        text = rng.choice(_IF) + text
    elif way < 0.87:
        text = rng.choice((*_ASKED, "", "")) + text.rstrip(".!") + "?"
    else:
        text = rng.choice(_OPEN) + text
    return Phrasing(text, ASK)


def _open_slot(slot: str, rng: Random) -> str:
    letter, whole = slot[0], f"{{{slot}}}"
    if letter in "TC":
        if rng.random() < 0.65:
            return forms.outsider(rng)
        other = f"{{{letter}9}}"
        return rng.choice((
            f"{whole} or {other}", f"everyone but {whole}", f"all except {whole}",
            f"either {whole} or {other}", f"one of {whole} and {other}",
        ))  # fmt: skip
    if letter == "A":
        return rng.choice((*_SOME_TIME, *(str(rng.randint(1, 12)) for _ in _SOME_TIME)))
    if letter == "D":
        return rng.choice(("a while", "some time", "a bit", "some minutes", "as long as it takes"))
    return rng.choice(_SOME)


def _in_company(phrasing: Phrasing, rng: Random) -> Phrasing:
    text = phrasing.text
    if rng.random() < 0.5:
        text = rng.choice(_BEFORE) + text
    if rng.random() < 0.6:
        text = text.rstrip(".!") + rng.choice(_AFTER)
    return Phrasing(text, phrasing.code)


def _mistyped(phrasing: Phrasing, rng: Random) -> Phrasing:
    words = [each for each in re.findall(r"\{..\}|\w+", phrasing.text) if len(each) > 4]
    words = [each for each in words if each[0] != "{"]
    text = phrasing.text
    for word in rng.sample(words, min(len(words), rng.randint(1, 2))):
        text = re.sub(rf"\b{word}\b", forms.with_typo(word, rng), text, count=1)
    return Phrasing(text, phrasing.code)


def _filled(phrasing: Phrasing, rng: Random) -> Example | None:
    """The phrasing with names and numbers; None where they cannot be read back."""
    slots = sorted(set(SLOT.findall(phrasing.text)))
    of = {letter: [slot for slot in slots if slot[0] == letter] for letter in "TC"}
    names = forms.contract(rng, len(of["T"]), len(of["C"]))
    drawn: dict[str, forms.Drawn] = {}
    for letter, known in (("T", names.tenants), ("C", names.slo_classes)):
        for slot, name in zip(of[letter], rng.sample(known, len(of[letter])), strict=True):
            drawn[slot] = forms.written(name, rng), name
    draw = {"A": forms.clock, "D": forms.lasting, "S": forms.share, "X": forms.factor}
    drawn |= {slot: draw[slot[0]](rng) for slot in slots if slot not in drawn}
    text = SLOT.sub(lambda slot: drawn[slot[1]][0], phrasing.text)
    text = rng.choice((text, text, text, text.capitalize(), text.lower()))
    now = f"{rng.randrange(24):02}:{rng.randrange(60):02}"
    marked = mark(text, names)
    marks = {slot: _mark_of(slot[0], value, marked) for slot, (_, value) in drawn.items()}
    strange = [m for m in marked.values if m[0] in "TC" and m not in marks.values()]
    unread = [slot for slot in MARK.findall(phrasing.code) if not marks.get(slot)]
    if strange or unread:
        return None
    code = MARK.sub(lambda slot: str(marks[slot[0]]), phrasing.code)
    example = Example(text, now, names, marked, code)
    try:
        is_fit = isinstance(example.answer, Question) == phrasing.is_ask
    except ChangeError:
        return None
    return example if is_fit else None


def _mark_of(letter: str, value: Value, marked: MarkedText) -> str | None:
    for mark_, known in marked.values.items():
        if mark_[0] == letter and (
            known == value
            if isinstance(value, str) or isinstance(known, str)
            else math.isclose(known, value, abs_tol=1e-3)
        ):
            return mark_
    return None
