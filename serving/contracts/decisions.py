"""What may a controller ask of an engine, and what does the engine answer?"""

from dataclasses import dataclass, field

from serving.contracts.codec import STRICT


@dataclass(frozen=True, slots=True)
class Limits:
    """What may change while the engine runs; by default no rule acts.

    Attributes:
        max_active_requests: requests that may run at once.
        token_budget: most tokens one step may schedule.
        long_prefill_threshold: most tokens of one prompt per step; 0 is off.
        kv_reserve: KV guard: fraction of KV blocks that predicted peaks must leave free.
        follow_slack: size each step by the slack of its tightest decode.
        demote_hopeless: serve who can no longer meet its SLO last; None: as the policy says.
        prefill_share: balance: least share of step time for prefill while a deadline is near.
        prefill_by_key: serial: a waiting request of lower key goes before prefills begun.
        max_partial_prefills: serial: with so many begun, only who goes before them may; 0: off.
        triage: while not all can meet their deadlines, serve those dearest to save last.
        tenant_buckets: serve what a tenant sends beyond its share last, while others wait.
        choose_victims: preempt by least loss instead of the latest admitted.
        pace_decodes: leave decodes that are not due yet out of steps too long for the tightest.
        shed: share (0..1) of requests of sheddable classes that the API server refuses.
    """

    __pydantic_config__ = STRICT
    max_active_requests: int
    token_budget: int
    long_prefill_threshold: int = 0
    kv_reserve: float = 0.0
    follow_slack: bool = False
    demote_hopeless: bool | None = None
    prefill_share: float = 0.0
    prefill_by_key: bool = False
    max_partial_prefills: int = 0
    tenant_buckets: bool = False
    triage: bool = False
    choose_victims: bool = False
    pace_decodes: bool = False
    shed: float = 0.0


@dataclass(frozen=True, slots=True)
class Envelope:
    """What was fixed at start-up; limits are clamped to it, `sheddable` classes may be refused.

    `prefix_caching`: the KV cache keeps prompts for those that begin alike.
    """

    max_active_requests: int
    token_budget: int
    max_model_len: int
    kv_blocks: int
    block_size: int
    sheddable: tuple[str, ...] = ()
    prefix_caching: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """The whole desired state of an engine's scheduler, leased for `ttl_s` seconds."""

    __pydantic_config__ = STRICT
    controller_id: str
    epoch: int
    ttl_s: float
    policy: str
    params: dict[str, float]
    limits: Limits
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Ack:
    """The engine's answer to a decision, a renewal or a release."""

    accepted: bool
    epoch: int
    reason: str = ""
    clamped: dict[str, float] = field(default_factory=dict)
