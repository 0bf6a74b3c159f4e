"""May the model be asked once more? What it may spend, on the engine's clock.

Called by the policy agent before and after each decision. A decision that would go
beyond the budget is made without the model; nothing is put off.
"""

from collections import deque

from hmas_agents.agents.cost import Cost

HOUR_S = 3600.0
SHARE_WINDOW_S = 600.0
RECENT = 5  # decisions that the next one's cost is expected from


class Allowance:
    """At most `limit` within any `window_s`; a limit of 0 is none.

    If nothing is spent unless `room` had space for what was expected of it, then the sum
    over any window is at most `limit` plus what the last spending took beyond its
    expectation: before it there was room for what was expected, and time only frees more.
    """

    def __init__(self, limit: float, window_s: float) -> None:
        self.limit, self.window_s = limit, window_s
        self._spent: deque[tuple[float, float]] = deque()

    def spent(self, now_s: float) -> float:
        """The sum over the window that ends now. A clock that went back starts afresh."""
        while self._spent and not 0 <= now_s - self._spent[0][0] < self.window_s:
            self._spent.popleft()
        return sum(amount for _, amount in self._spent)

    def room(self, now_s: float, expected: float) -> bool:
        """Whether `expected` more stays within the limit."""
        return self.limit <= 0 or self.spent(now_s) + expected <= self.limit

    def spend(self, now_s: float, amount: float) -> None:
        """Note what was spent."""
        self._spent.append((now_s, amount))


class ModelBudget:
    """Tokens per hour and, where the model runs on the controlled engine, its step time.

    Args:
        max_tokens_per_hour: in any hour, prompt and reply together; 0 is no limit.
        max_step_share: of the engine's step time, 0..1, over any ten minutes; 0 is no limit.
    """

    def __init__(self, max_tokens_per_hour: int, max_step_share: float) -> None:
        self._tokens = Allowance(max_tokens_per_hour, HOUR_S)
        self._step_s = Allowance(max_step_share * SHARE_WINDOW_S, SHARE_WINDOW_S)
        self._share = max_step_share
        self._recent: deque[tuple[float, Cost]] = deque(maxlen=RECENT)

    def expected(self, now_s: float, first: Cost) -> Cost:
        """What the next decision should cost: the mean of the last five of this hour.

        `first` is the guess where there were none; dear decisions are forgotten after an
        hour, so that they cannot bar the model for good.
        """
        recent = [cost for at_s, cost in self._recent if 0 <= now_s - at_s < HOUR_S]
        if not recent:
            return first
        return Cost(
            round(sum(cost.prompt_tokens for cost in recent) / len(recent)),
            round(sum(cost.completion_tokens for cost in recent) / len(recent)),
        )

    def refusal(self, now_s: float, expected: Cost, expected_step_s: float) -> str:
        """Why a decision of that cost may not be asked for now; empty when it may."""
        if not self._tokens.room(now_s, expected.tokens):
            return (
                f"{self._tokens.spent(now_s):.0f} tokens spent in the last hour, about "
                f"{expected.tokens} more expected, max_tokens_per_hour {self._tokens.limit:.0f}"
            )
        if not self._step_s.room(now_s, expected_step_s):
            return (
                f"{self._step_s.spent(now_s):.2f} s of step time spent in the last "
                f"{SHARE_WINDOW_S:.0f} s, about {expected_step_s:.2f} s more expected, "
                f"max_step_share {self._share:g}"
            )
        return ""

    def spend(self, now_s: float, cost: Cost, step_s: float) -> None:
        """Note what a decision has cost."""
        self._tokens.spend(now_s, cost.tokens)
        self._step_s.spend(now_s, step_s)
        self._recent.append((now_s, cost))
