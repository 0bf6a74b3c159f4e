"""Which of the rule agents' calls go through this tick? Called by the short horizon.

The precedence, first to last, is `PRECEDENCE`: what one tenant does to others, then admission,
then the size of steps, then how prompts and decodes share them. A call is refused, with a reason,
when

- an agent of higher precedence calls the same tool in this tick (`same_tool`),
- one of them pushes the same quantity the other way (`opposed`): prefill per step, or the
  requests let in; the knobs' rows say what pushes which,
- it asks for what is in force already (`in_force`),
- it comes too soon: `held`, `too_soon`, `too_many`; see `CallRate`.
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from hmas_agents.agents.calls import RuleCall, push_of, step_of
from hmas_agents.config import Concern
from serving.contracts import Limits
from serving.contracts.limits import Quantity
from serving.contracts.rules import BY_TOOL

PRECEDENCE: tuple[Concern, ...] = get_args(Concern)

PER_S = 60.0  # what the bound on calls is counted over
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


class CallRate:
    """How often rule agents may move a knob: holds, gaps, and a bound per minute.

    A change needs time to show before the next one, and a way back needs more time than the way
    there: each knob's row has its holds. Remembers when each tool changed something, on the
    engine's clock.

    Args:
        min_gap_s: between two calls of one tool, whichever way.
        max_calls_per_minute: of all tools together.
    """

    def __init__(self, min_gap_s: float, max_calls_per_minute: int) -> None:
        self._min_gap_s, self._most = min_gap_s, max_calls_per_minute
        self._last_s: dict[str, float] = {}
        self._calls_s: deque[float] = deque()

    def too_soon(self, tool: str, step: int, now_s: float) -> tuple[Refused | Literal[""], str]:
        """Whether a step up (1) or down (-1) must wait, and why; ("", "") when it may go."""
        since_s = now_s - self._last_s.get(tool, -math.inf)
        knob = BY_TOOL[tool]
        hold_s = knob.hold_up_s if step > 0 else knob.hold_down_s
        if since_s < hold_s:
            return "held", f"{since_s:.0f} s after its last change, {hold_s:g} s are to pass"
        if since_s < self._min_gap_s:
            return "too_soon", f"{since_s:.1f} s after its last call, of {self._min_gap_s:g} s"
        while self._calls_s and self._calls_s[0] <= now_s - PER_S:
            self._calls_s.popleft()
        if len(self._calls_s) >= self._most:
            return "too_many", f"{self._most} calls in the last {PER_S:.0f} s are the bound"
        return "", ""

    def note(self, tool: str, now_s: float) -> None:
        """A call of the tool goes through."""
        self._last_s[tool] = now_s
        self._calls_s.append(now_s)


class Arbiter:
    """One controller's; remembers what went through and when."""

    def __init__(self, rate: CallRate) -> None:
        self._rate = rate
        self._told_s: dict[tuple[str, str], float] = {}

    def note(self, calls: Iterable[RuleCall], now_s: float) -> None:
        """Calls that went through without being asked for here: those of a recorded run."""
        for call in calls:
            self._rate.note(call["name"], now_s)

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
            self._rate.note(call["name"], now_s)
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
        return self._rate.too_soon(name, step, now_s)

    def _are_news(self, refused: list[Refusal], now_s: float) -> bool:
        news = False
        for refusal in refused:
            key = refusal.call["name"], refusal.code
            if refusal.code in _NOT_NEWS:
                continue
            if now_s - self._told_s.get(key, float("-inf")) >= TELL_AGAIN_S:
                self._told_s[key], news = now_s, True
        return news
