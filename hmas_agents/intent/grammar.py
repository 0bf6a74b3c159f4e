"""What can keywords and regular expressions make of a text? The reader without a model."""

import re
from difflib import get_close_matches
from itertools import product
from typing import Any

from hmas_agents.intent.change import (
    NEUTRAL,
    PROTECT_FACTOR,
    SHED_SHARE,
    WAIT_FACTOR,
    ChangeError,
    Names,
    read_answer,
)
from hmas_agents.intent.quantities import clock_after, marked
from hmas_agents.intent.reading import Reading

# The kind, its amount without a number, its words; the first that is found decides.
_KINDS: tuple[tuple[str, float | None, str], ...] = (
    ("expect", None, r"expect|reckon|forecast|^(?!.*(\bshed|refus|reject|block|latenc|admit|\blet"
     r"|accept|turn|drop .*(traffic|load)|cut)).*(traffic|\bload|volume"
     r"|(calls|requests) (will|should|are|from|come))"),
    ("slo_scale", None, r"latenc|\blat\b|\bslos?\b|targets?\b|\btgts?|deadline|objectives?\b"
     r"|goals?\b|respons|ttft|slower|faster|quicker|longer (answ|wait)"
     r"|answers? .*(longer|later?|fast)|as (long|fast|late)\b|tight|loos|relax|strict|lenient"
     r"|slack|grace|(less|more|the) time\b|takes? (<x|<share)|wants it <"),
    ("floor", None, r"floor|guarant|gtee|reserv|at least|at all times|minimum|(?<!<)\bmin\b|no less"
     r"|less than|never below|always have|\baside|earmark|fence|bottom line|for sure"
     r"|spoken for|\b(ke\w+|save|hold|own) .*<share"
     r"|<share \S+ (of the (engine|gpu|machine)|of capacity)"),
    ("shed", SHED_SHARE, r"\bshed|drop|reject|refus|block|\bblk|discard|turn\w* away|kill"
     r"|let .*\bin\b|welcome|accept|admit|intake|bounc|\bban(s|ned)?\b|suspen"
     r"|(cut|switch) off|shut out|lock|den(y|ied)|exclu|overboard|\b429|reopen"),
    ("weight", None, r"weigh|\bwt\b|worth|counts? for|important as"),
    ("weight", WAIT_FACTOR, r"\bwait\b|\blast\b|behind|queue|\bput (it )?off|no (hurry|rush)|bottom"
     r"|the line|\blow|little|no importance|n.t (important|urgent)|less important|hasn't"
     r"|not (so )?(important|urgent)|sidelin|back (seat|burner)|second class|give way|step back"
     r"|depri|slow.track|after (the|every|all)|aspettare"),
    ("weight", PROTECT_FACTOR, r"protect|first|ahead|prio|favou?r|prefer|(in|up|the) front"
     r"|in a hurry|before (the|every|all)|what counts|right of way|above|\bover\b|\btop\b"
     r"|\bleads?\b|important|urgent|treat|fast lane|\bvip\b|boost|come after|prima|eerst"),
    ("expect", None, r"traffic|\bload|requests?\b|surge|spike|will (send|see|<x)|volume"
     r"|as many|comes? in|\bsends?\b|sending|incoming|busier|calmer|visitors|\bcalls\b"),
)  # fmt: skip
_BACK = (
    r"\b(stop|no more|no longer|any ?more|any longer|back|again|cancel\w*|unblock|undo|equal|agreed"
    r"|no|not|never|nothing|return|usual|goes away|same weight|remove|normal|neither|don.?t"
    r"|welcome|lift(ed)?|ends?|revoke|reset|restore|accept|reopen|loses|not a)\b"
)
_LESS = (
    r"fewer|\bless|down|\blower|faster|quick|tight|strict|short|minus|reduc|cut|<share -|\bdrop"
    r"|fall|calm"
)
_TO = r"\b(to|at) (about |only )?<share|<share \S+ of (the|its|their|normal|usual|what|agreed)"
_MORE = r"more|\bup\b|plus|\+ ?<|grow|longer|slower|higher|worsen|loos"
_NOTHING = r"\b(no|zero) (\w+ )?(traffic|requests)|nothing|\baway\b|\bnot a single|\bzero\b"
_THAN = "ahead of|before|over|above|behind|below|after|under"
_ADMITS = r"\blet\b.*\b(in|through|pass)\b|accept|admit|welcome|reopen"
_VAGUE = (
    r"\?|tonight|tomorrow|weekend|\w+day\b|lunch|some ?time|ish\b|\bif\b|when\b|except|but [TC]\d"
    r"|\d or [TC]\d|somewhat|\bmost\b|instruct|system|maybe|a bit|several|all of it|well,|until \d"
    r"|\bsome\b|depend|in case|a few|would have|nearly|ticket|each (day|night)"
)
_TYPED = "expect traffic first wait protect block refuse guarantee until urgent front percent for"
_CLAUSES = r"[;,!]|\.(?!\d)|\b(?:and|but|while)\b|(?<!until )(?<!from )\bthen\b"
_SAME_TIME = r"as long|that time|(until|from) then"
CONFIDENCE = 0.77  # the share of its changes that were right, of texts it was not tuned for
_MAX_LETTERS = 2000
_FOR_ALL = r"\bevery|\ball\b|platform"


class Grammar:
    """Reads by keywords and regular expressions; what it does not find it asks."""

    name = "grammar"

    def read(self, text: str, now: str, names: Names) -> Reading:
        """Mark names and quantities, then see what each clause wants of them."""
        left = with_names(text[:_MAX_LETTERS].casefold(), names)
        left = re.sub(r"\b([TC])(\d+)(?:,? and|,) (?:of )?(?=\1\d)", r"\1\2 ", left)
        is_vague = len(text) > _MAX_LETTERS or re.search(_VAGUE, left)
        changes = [] if is_vague else _changes(left, now, names)
        try:
            read_answer(changes, names, now)
        except ChangeError:
            return Reading({"question": "Whom is it about, and what shall change?"}, 1.0)
        return Reading(changes, CONFIDENCE)


def with_names(left: str, names: Names) -> str:
    """The text with `T0`, `T1` for tenants, `C0` for classes, and marked quantities."""
    forms = {word: word for word in _TYPED.split()}
    for letter, known in (("T", names.tenants), ("C", names.slo_classes)):
        parts = [re.split(r"[-_. ]|(?<=[a-z])(?=\d)", name.casefold()) for name in known]
        for i, each in enumerate(parts):
            own = [p for p in each if len(p) > 1 and sum(p in other for other in parts) == 1]
            forms |= dict.fromkeys(["[-_. ]?".join(map(re.escape, each)), *own], f"{letter}{i}")
    for form, token in sorted(forms.items(), key=lambda item: -len(item[0])):
        left = re.sub(rf"(?<!\w){form}(?:'?s|es)?(?!\w)", token, left)
    for word in set(re.findall(r"(?<!\w)[^\W\d_]{4,}(?!\w)", left)):
        if near := get_close_matches(word, forms, 1, 0.84):
            left = re.sub(rf"\b{word}\b", forms[near[0]], left)
    return re.sub(r"(<at \S+>),? (?:and|to|-|until|till?) (?=<at)", r"\1 until ", marked(left))


def _changes(left: str, now: str, names: Names) -> list[dict[str, Any]]:
    """The changes of all clauses; none where one of them leaves open whom it is about."""
    done: list[dict[str, Any]] = []
    nobody: dict[str, Any] = {"T": [], "C": [], "times": {}}
    held, last = nobody, nobody | {"wanted": None, "changes": done}
    for clause in re.split(_CLAUSES, left):
        own = re.sub(rf"\b({_THAN}) (?:the )?[TC]\d+", r"\1", clause)
        who = {k: list(dict.fromkeys(re.findall(rf"\b{k}(\d+)", own))) for k in "TC"}
        wanted = next(((k, n) for k, n, words in _KINDS if re.search(words, own)), None)
        wanted = wanted or (last["wanted"] if re.search("<(x|share) ", own) else None)
        times = (last["times"] if re.search(_SAME_TIME, own) else {}) | _times(own, now)
        if wanted is None:  # it says more of the changes before, or the beginning of the next
            if not any(who.values()):
                for each in done if re.search("both|all|each", own) else last["changes"]:
                    each.update(times)
            held = {k: held[k] + who[k] for k in who} | {"times": held["times"] | times}
            continue
        whom = {k: who[k] or held[k] for k in who}
        if not any(whom.values()) and not re.search(_FOR_ALL, own):
            whom = {k: last[k] for k in who}
            if not any(whom.values()):
                return []
        kind, default = wanted
        changes: list[dict[str, Any]] = [
            {"kind": kind, **_amount(kind, default, own), **held["times"], **times,
             "tenant": t and names.tenants[int(t)], "slo_class": c and names.slo_classes[int(c)]}
            for t, c in product(whom["T"] or [None], whom["C"] or [None])
        ]  # fmt: skip
        done += [each for each in changes if each not in done]
        last = {**whom, "times": held["times"] | times, "wanted": wanted, "changes": changes}
        held = nobody
    return done


def _times(own: str, now: str) -> dict[str, Any]:
    times: dict[str, Any] = {}
    if starts := re.search(r"\bin (?:about )?<min (\d+)>", own):
        times["from"] = clock_after(now, int(starts[1]))
        own = own.replace(starts[0], "")
    for word, clock in re.findall(r"(\w*) ?<at (\S+)>", own):
        times["until" if re.match("until|till?|to|before|alle", word) else "from"] = clock
    lasts = re.search(r"<min (\d+)>", own)
    return times | ({"for_min": int(lasts[1])} if lasts else {})


def _amount(kind: str, default: float | None, own: str) -> dict[str, float | None]:
    unit = "share" if kind in {"floor", "shed"} else "factor"
    admits, is_less = kind == "shed" and re.search(_ADMITS, own), re.search(_LESS, own)
    if not (found := re.search(r"<(x|share) (\S+)>", own)):
        if kind == "expect" and re.search(_NOTHING, own):
            return {unit: 0.0}
        is_back = default != WAIT_FACTOR and bool(re.search(_BACK, own))
        if admits:
            is_back = not re.search(r"\b(no|not|never|don.?t|stop|nothing|won.?t)\b", own)
        return {unit: NEUTRAL[kind] if is_back else default}
    value = float(found[2])
    if unit == "share":
        value = 1 - value if admits else value
    elif found[1] == "x":
        value = 1 / value if kind == "slo_scale" and is_less and value else value
    elif not re.search(_TO, own) and (is_less or kind == "slo_scale" or re.search(_MORE, own)):
        value = 1 - value if is_less else 1 + value
    return {unit: value}
