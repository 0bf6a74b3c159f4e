"""What may words change, and for how long? One typed change, checked against the contract.

A text gives a list of changes or one question back. Fields that were not said are left out.
`docs/words.md` has the vocabulary with its defaults.
"""

import json
from collections.abc import Iterator
from itertools import combinations
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from serving.contracts.contract import MAX_FLOORS, Contract
from serving.contracts.near_names import choices

Kind = Literal["weight", "floor", "slo_scale", "shed", "expect"]
Clock = Annotated[str, StringConstraints(pattern="^([01][0-9]|2[0-3]):[0-5][0-9]$")]
PROTECT_FACTOR = 3.0  # "protect", "first"
WAIT_FACTOR = 0.3  # "can wait", "not urgent"
SHED_SHARE = 1.0  # `shed` without a share
NEUTRAL = {"weight": 1.0, "floor": 0.0, "slo_scale": 1.0, "shed": 0.0, "expect": 1.0}
BOUNDS: dict[Kind, tuple[float, float]] = {
    "weight": (0.01, 100.0),
    "floor": (0.0, MAX_FLOORS),
    "slo_scale": (0.1, 10.0),
    "shed": (0.0, 1.0),
    "expect": (0.0, 100.0),
}
MAX_CHANGES = 12  # of one text
DAY_MIN = 24 * 60
MAX_FOR_MIN = 7 * DAY_MIN  # what is to hold for longer belongs in contract.toml
SHARES = ("floor", "shed")


class ChangeError(ValueError):
    """What was read cannot be asked for; a line for each problem."""


class Names(BaseModel):
    """The names that a change may use: those of the contract in force."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tenants: tuple[str, ...]
    slo_classes: tuple[str, ...]

    @classmethod
    def of(cls, contract: Contract) -> Self:
        """Tenants with terms of their own, and every SLO class."""
        return cls(tenants=tuple(contract.tenants), slo_classes=contract.class_names)


class Change(BaseModel):
    """One change of the contract, or one announced change of traffic.

    Without `tenant` it is for every tenant, without `slo_class` for every class.

    Attributes:
        factor: of `weight`: the weight; of `slo_scale`: all targets are multiplied by it; of
            `expect`: requests over what came lately.
        share: of `floor`: of the engine's work; of `shed`: of the requests, refused.
        from_: begins at its next occurrence; without it now. `from` in JSON.
        until: ends at its next occurrence after the beginning.
        for_min: ends so many minutes after the beginning. Without either, it holds until revoked.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    kind: Kind
    tenant: str | None = None
    slo_class: str | None = None
    factor: float | None = Field(None, allow_inf_nan=False)
    share: float | None = Field(None, allow_inf_nan=False)
    from_: Clock | None = Field(None, alias="from")
    until: Clock | None = None
    for_min: int | None = Field(None, ge=1, le=MAX_FOR_MIN)

    @model_validator(mode="before")
    @classmethod
    def _with_default(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("kind") == "shed" and data.get("share") is None:
            return {**data, "share": SHED_SHARE}
        return data

    @field_validator("factor", "share")
    @classmethod
    def _to_percents(cls, value: float | None) -> float | None:
        """Two decimals: "a third" is 0.33 for everybody."""
        return value if value is None else round(value, 2)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if problems := "; ".join(self._problems()):
            raise ValueError(f"{self.kind}: {problems}")
        return self

    def _problems(self) -> Iterator[str]:
        wanted, other = ("share", "factor") if self.kind in SHARES else ("factor", "share")
        low, high = BOUNDS[self.kind]
        if getattr(self, other) is not None:
            yield f"takes a {wanted}, not a {other}"
        elif getattr(self, wanted) is None:
            yield f"needs a {wanted}"
        elif not low <= self.amount <= high:
            yield f"{wanted} is {low:g} to {high:g}, not {self.amount:g}"
        elif self.is_for_all and (
            self.kind == "floor" or (self.kind == "weight" and self.amount != 1)
        ):
            yield "names a tenant or an SLO class: the same for all changes nothing"
        if self.until is not None and self.for_min is not None:
            yield "ends `until` a time or after `for_min`, not both"
        if self.until is not None and self.until == self.from_:
            yield f"begins and ends at {self.until}"

    @property
    def amount(self) -> float:
        """Its factor or its share, whichever its kind has."""
        amount = self.share if self.kind in SHARES else self.factor
        return NEUTRAL[self.kind] if amount is None else amount

    @property
    def is_for_all(self) -> bool:
        """Whether it names neither a tenant nor an SLO class."""
        return self.tenant is None and self.slo_class is None

    def window_min(self, now: str) -> tuple[int, float]:
        """Minutes from `now` ("HH:MM") to its beginning and to its end, which may be infinite."""
        begins = 0 if self.from_ is None else (_minute(self.from_) - _minute(now)) % DAY_MIN
        if self.for_min is not None:
            return begins, begins + self.for_min
        if self.until is None:
            return begins, float("inf")
        return begins, begins + (_minute(self.until) - _minute(now) - begins) % DAY_MIN

    def window_s(self, now: str, minute_s: float, now_s: float) -> tuple[float, float | None]:
        """When it begins and ends, in seconds of some clock.

        Args:
            now: the time of day that its own times count from.
            minute_s: when it becomes `now`, on that clock.
            now_s: when it begins if it begins now.
        """
        begins_min, ends_min = self.window_min(now)
        from_s = minute_s + 60.0 * begins_min if begins_min else now_s
        if self.for_min is not None:
            return from_s, from_s + 60.0 * self.for_min
        return from_s, None if self.until is None else minute_s + 60.0 * ends_min


class Question(BaseModel):
    """What is asked back where a text was not clear, not possible, or no request."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    question: str = Field(min_length=1, max_length=300)


Changes = Annotated[tuple[Change, ...], Field(min_length=1, max_length=MAX_CHANGES)]
Answer = tuple[Change, ...] | Question
_CHANGES, _QUESTION = TypeAdapter(Changes), TypeAdapter(Question)


def read_answer(reply: object, names: Names, now: str) -> Answer:
    """A reply (JSON data: a list of changes, or `{"question": ...}`), checked.

    Args:
        reply: what a model or a grammar made of the text.
        names: those of the contract in force.
        now: the local time, "HH:MM".

    Raises:
        ChangeError: a line for each thing that is wrong.
    """
    # Through JSON, where lists are tuples and nothing else is converted.
    kind = _QUESTION if isinstance(reply, dict) else _CHANGES
    try:
        answer: Answer = kind.validate_json(json.dumps(reply))
    except (ValidationError, TypeError) as error:
        raise ChangeError(_explained(error)) from error
    if isinstance(answer, tuple) and (problems := problems_of(answer, names, now)):
        raise ChangeError("\n".join(problems))
    return answer


def problems_of(changes: tuple[Change, ...], names: Names, now: str) -> list[str]:
    """What the contract or the other changes say against these; empty where nothing does."""
    found = []
    for number, change in enumerate(changes, 1):
        for word, name, known in (
            ("tenant", change.tenant, names.tenants),
            ("SLO class", change.slo_class, names.slo_classes),
        ):
            if name is not None and name not in known:
                found.append(f"change {number}: no {word} {name!r}; {choices(name, known)}")
        if change.from_ is None and change.until == now:
            found.append(f"change {number}: ends at {now}, which is now")
    for (number, one), (other_number, other) in combinations(enumerate(changes, 1), 2):
        if _subject(one) == _subject(other) and _overlap(one, other, now):
            found.append(f"changes {number} and {other_number}: the same, for the same time")
    floors = [change for change in changes if change.kind == "floor"]
    sums = [sum(each.amount for each in floors if _overlap(each, one, now)) for one in floors]
    if sums and max(sums) > MAX_FLOORS + 1e-9:
        found.append(f"floors add up to {max(sums):g}, at most {MAX_FLOORS}")
    return found


def canonical(answer: Answer) -> str:
    """The same text for two answers that mean the same: neither order nor nulls count.

    All questions are alike.
    """
    if isinstance(answer, Question):
        return "question"
    lines = [change.model_dump_json(by_alias=True, exclude_none=True) for change in answer]
    return "\n".join(sorted(lines))


def _subject(change: Change) -> tuple[str, str | None, str | None]:
    return change.kind, change.tenant, change.slo_class


def _overlap(one: Change, other: Change, now: str) -> bool:
    (begins, ends), (other_begins, other_ends) = one.window_min(now), other.window_min(now)
    return begins < other_ends and other_begins < ends


def _minute(clock: str) -> int:
    return int(clock[:2]) * 60 + int(clock[3:])


def _explained(error: ValidationError | TypeError) -> str:
    if isinstance(error, TypeError):
        return f"not JSON: {error}"
    lines, errors = [], error.errors()
    for each in errors:
        if each["type"] == "too_short" and len(errors) > 1:
            continue  # what is wrong was left out of the tuple
        place = [f"change {p + 1}" if isinstance(p, int) else str(p) for p in each["loc"]]
        problem = each["msg"].removeprefix("Value error, ")
        if each["type"] == "extra_forbidden":
            fields = [f.alias or name for name, f in Change.model_fields.items()]
            problem = f"unknown; {choices(str(each['loc'][-1]), fields)}"
        if each["type"] == "literal_error" and isinstance(each["input"], str):
            problem = f"no kind {each['input']!r}; {choices(each['input'], get_args(Kind))}"
        lines.append(": ".join([*place, problem]))
    return "\n".join(lines)
