"""Which of the rule agents' calls go through this tick? Called by the short horizon.

The precedence, first to last, is `PRECEDENCE`: lost work (KV), then what one tenant does to
others, then admission, then the size of steps, then how prompts and decodes share them. A call
is refused, with a reason, when

- an agent of higher precedence calls the same tool in this tick (`same_tool`),
- one of them pushes the same quantity the other way (`opposed`): prefill per step, or the
  requests let in; the knobs' rows say what pushes which,
- it asks for what is in force already (`in_force`),
- the pace does not allow it: `held`, `too_soon`, `too_many`; see `pace`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from hmas_agents.agents.call_rate import CallRate
from hmas_agents.agents.calls import RuleCall, push_of, step_of
from hmas_agents.config import Concern
from serving.contracts import Limits
from serving.contracts.limits import Quantity

PRECEDENCE: tuple[Concern, ...] = get_args(Concern)

Refused = Literal["same_tool", "opposed", "in_force", "held", "too_soon", "too_many"]
# Told once per tool and cause in so long; an agent that insists would fill the ledger.
TELL_AGAIN_S = 60.0
_NOT_NEWS = ("held",)  # hysteresis at work, not worth a line


@dataclass(frozen=True, slots=True)
class Refusal:
    """A call that does not go through."""

    concern: Concern
    call: RuleCall
    code: Refused
    detail: str

    @property
    def reason(self) -> str:
        """As the ledger has it."""
        return f"refused by the arbiter ({self.code}): {self.detail}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a tick's calls; `news` are refusals that were not told lately."""

    granted: tuple[RuleCall, ...] = ()
    refused: tuple[Refusal, ...] = ()
    news: bool = False


class Arbiter:
    """One controller's; remembers what went through, for the pace."""

    def __init__(self, pace: CallRate) -> None:
        self._pace = pace
        self._told_s: dict[tuple[str, str], float] = {}

    def note(self, calls: Iterable[RuleCall], now_s: float) -> None:
        """Calls that went through without being asked for here: those of a recorded run."""
        for call in calls:
            self._pace.note(call["name"], now_s)

    def arbitrate(
        self, asked: Iterable[tuple[Concern, RuleCall]], limits: Limits, now_s: float
    ) -> Verdict:
        """Let through what may go.

        Args:
            asked: calls in order of precedence, each with the agent that asks.
            limits: in force.
            now_s: on the engine's clock.
        """
        granted: dict[str, RuleCall] = {}
        pushed: dict[Quantity, tuple[int, Concern]] = {}
        refused: list[Refusal] = []
        for concern, call in asked:
            code, detail = self._objection(call, limits, now_s, granted, pushed)
            if code:
                refused.append(Refusal(concern, call, code, detail))
                continue
            granted[call["name"]] = call
            self._pace.note(call["name"], now_s)
            quantity, way = push_of(call, limits)
            if quantity:
                pushed.setdefault(quantity, (way, concern))
        return Verdict(tuple(granted.values()), tuple(refused), self._are_news(refused, now_s))

    def _objection(
        self,
        call: RuleCall,
        limits: Limits,
        now_s: float,
        granted: dict[str, RuleCall],
        pushed: dict[Quantity, tuple[int, Concern]],
    ) -> tuple[Refused | Literal[""], str]:
        name, step = call["name"], step_of(call, limits)
        if step == 0:
            return "in_force", "that is in force already"
        if name in granted:
            return "same_tool", "an agent of higher precedence has just called it"
        quantity, way = push_of(call, limits)
        before, concern = pushed.get(quantity, (way, ""))
        if quantity and before != way:
            return "opposed", f"{concern} has just moved what is {quantity} the other way"
        return self._pace.too_soon(name, step, now_s)

    def _are_news(self, refused: list[Refusal], now_s: float) -> bool:
        news = False
        for refusal in refused:
            key = refusal.call["name"], refusal.code
            if refusal.code in _NOT_NEWS:
                continue
            if now_s - self._told_s.get(key, float("-inf")) >= TELL_AGAIN_S:
                self._told_s[key], news = now_s, True
        return news
