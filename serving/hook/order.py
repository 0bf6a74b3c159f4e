"""By which order and which limits does the core go? What a decision sets in its arrays.

The waiting queue inside vLLM and the compiled engine both decide by it; no vLLM here.
"""

from collections.abc import Callable, Sequence

import numpy as np

from serving.contracts import Decision, Envelope
from serving.contracts.rules import COUNTERS
from serving.core import control, queue, tenants, triage
from serving.core.keys import NUMBERS
from serving.core.state import Core
from serving.perception.lanes import Lanes
from serving.policies import POLICIES, Policy, complete_params
from serving.policies.priority import STOCK_PRIORITY

# Limits that the core goes by, under their own names.
_LIMITS = (
    "max_active_requests", "token_budget", "long_prefill_threshold", "follow_slack",
    "max_partial_prefills", "prefill_by_key", "prefill_share", "pace_decodes", "shed",
)  # fmt: skip


class Order:
    """Owed to a floor, starved or resumed first, hopeless last, else by the policy's key.

    Args:
        max_wait_s: a request that has waited longer outranks every policy.
        on_policy_error: called with the failing policy's name and the exception,
            after the queue has fallen back to first come, first served.
        lanes: the tenants' work, weights, floors and buckets, and the rows.

    Attributes:
        policy, params: in force.
    """

    def __init__(
        self, max_wait_s: float, on_policy_error: Callable[[str, Exception], None], lanes: Lanes
    ) -> None:
        self.lanes, self._on_policy_error = lanes, on_policy_error
        self.core.engine["max_wait_s"] = max_wait_s
        self._demotes: bool | None = None
        self.policy: Policy = POLICIES["fcfs"]
        self.params: dict[str, float] = {}

    def describe_machine(self, envelope: Envelope, groups: Sequence[tuple[int, float]]) -> None:
        """Note what was fixed at start-up.

        Args:
            envelope: of the engine.
            groups: of the KV cache: tokens per block, and most blocks of one request.
        """
        self.lanes.rows.core = self.core._replace(
            groups=np.array(groups, np.float64).reshape(-1, 2)
        )
        engine = self.core.engine
        engine["most_active"] = envelope.max_active_requests
        engine["most_tokens"] = envelope.token_budget
        engine["kv_blocks"], engine["prefix_caching"] = envelope.kv_blocks, envelope.prefix_caching

    def enforce(self, decision: Decision, epoch: int, *, as_stock: bool = False) -> None:
        """Go by this decision from the next step on, `as_stock` in vLLM's order alone. O(n)."""
        limits, engine = decision.limits, self.core.engine
        for name in _LIMITS:
            engine[name] = getattr(limits, name)
        engine["epoch"] = epoch
        self.set_policy(
            decision.policy, decision.params, float(control.prefill_rate(self.core)),
            float(control.decode_rate(self.core)), demote_hopeless=limits.demote_hopeless,
            buckets=limits.tenant_buckets, triage=limits.triage, as_stock=as_stock,
        )  # fmt: skip

    @property
    def core(self) -> Core:
        """The arrays that the order is in."""
        return self.lanes.core

    @property
    def prefill_s_per_token(self) -> float:
        """Predicted seconds per prompt token, as keys and standings have it."""
        return float(self.core.engine["prefill_s_per_token"][0])

    @property
    def counts(self) -> dict[str, int]:
        """What rules and guarantees did, by `serving.contracts.rules.COUNTERS`."""
        engine = self.core.engine
        return {name: int(engine[name][0]) for name in COUNTERS}

    @property
    def backlog_tokens(self) -> int:
        """Prompt tokens of requests that can still meet their SLO."""
        return int(self.core.engine["backlog_tokens"][0])

    def set_policy(
        self,
        name: str,
        params: dict[str, float],
        prefill_s_per_token: float,
        decode_s_per_token: float = 0.0,
        *,
        demote_hopeless: bool | None = None,
        buckets: bool = False,
        triage: bool = False,
        as_stock: bool = False,
    ) -> None:
        """Order by other rules, `as_stock` by vLLM's alone. O(n); ValueError for bad parameters."""
        self.params, engine = complete_params(name, params), self.core.engine
        for parameter, value in self.params.items():
            engine[parameter] = value
        engine["prefill_s_per_token"] = prefill_s_per_token
        engine["decode_s_per_token"] = decode_s_per_token
        if triage != bool(engine["triage"][0]):
            self._switch_triage(triage)
        engine["buckets"], self._demotes = buckets, demote_hopeless
        self._order_by(STOCK_PRIORITY if as_stock and name == "priority" else POLICIES[name])

    def weigh(self, rows: list[int] | slice, weights: list[float] | np.ndarray) -> None:
        """These requests count for so much now; the keys of those that wait follow. O(n)."""
        column, waiting = self.core.requests["weight"], queue.waiting_rows(self.core)
        before = column[waiting]
        column[rows] = weights
        if (column[waiting] != before).any():
            queue.place_all_anew(self.core)
            self._fall_back_if_broken()

    def set_load(
        self, load: float, prefill_s_per_token: float, decode_s_per_token: float = 0.0
    ) -> None:
        """Take over load and costs; keys and standings follow where these have moved."""
        queue.set_load(self.core, load, prefill_s_per_token, decode_s_per_token)
        self._fall_back_if_broken()

    def advance(self, now_s: float) -> None:
        """Apply what is due by now, and triage."""
        queue.advance(self.core, now_s)
        triage.triage(self.core)
        self._fall_back_if_broken()

    def _switch_triage(self, on: bool) -> None:
        self.core.engine["triage"], self.core.engine["triage_due_s"] = on, -np.inf
        triage.forget_parked(self.core)

    def _order_by(self, policy: Policy) -> None:
        engine = self.core.engine
        if policy.shares and not engine["shares"][0]:
            tenants.level(self.core)
        self.policy = policy
        engine["policy"] = NUMBERS[policy.name]
        engine["demotes"] = policy.demotes if self._demotes is None else self._demotes
        engine["shares"], engine["starvation_free"] = policy.shares, policy.starvation_free
        engine["is_stock"] = policy.is_stock
        engine["follows_load"], engine["needs_lengths"] = policy.follows_load, policy.needs_lengths
        queue.place_all_anew(self.core)
        self._fall_back_if_broken()

    def _fall_back_if_broken(self) -> None:
        if self.core.engine["broken"][0]:
            self.fall_back()

    def fall_back(self) -> None:
        """A key was no number: from now on first come, first served."""
        self.core.engine["broken"] = 0
        failed, self.params = self.policy.name, {}
        self._order_by(POLICIES["fcfs"])
        self._on_policy_error(failed, ValueError("a key is no number, and has no order"))
