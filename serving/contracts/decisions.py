"""What may a controller ask of an engine, and what does the engine answer?"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from serving.contracts.codec import STRICT
from serving.contracts.limits import Limits

PERSON = "person:"  # how a person's `controller_id` begins: it outranks every controller
PINNED_S = 10 * 365 * 86_400.0  # ttl_s of a person's decision that holds until it is released
_TOUCH = 1e-6  # so that three thirds of 10 are 10


@dataclass(frozen=True, slots=True)
class Envelope:
    """What was fixed at start-up; limits are clamped to it.

    `sheddable` classes may be refused, as the contract in force says. `prefix_caching`: the KV
    cache keeps prompts for later ones that begin alike. `max_wait_s` and `bucket_s` are those of
    the engine's settings.
    """

    max_active_requests: int
    token_budget: int
    max_model_len: int
    kv_blocks: int
    block_size: int
    sheddable: tuple[str, ...] = ()
    prefix_caching: bool = False
    max_wait_s: float = 900.0
    bucket_s: float = 10.0


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
class TenantPart:
    """What one replica gives of a tenant's terms, which a contract promises for the whole fleet.

    Factors: `share` on its weight and floor, `limits` on `tokens_per_minute` and `max_waiting`.
    Both are 1 where one engine is all there is. With a lease only: they end as it does.
    """

    __pydantic_config__ = STRICT
    share: float = 1.0
    limits: float = 1.0

    def of_limit(self, limit: int | None) -> int | None:
        """The part of a limit, rounded down, but never 0, which would be none at all."""
        return None if limit is None else max(1, int(limit * self.limits + _TOUCH))


Parts = Mapping[str, TenantPart]  # by tenant; who is not named has the whole
WHOLE = TenantPart()


@dataclass(frozen=True, slots=True)
class Stopped:
    """The kill switch is on: `by` whom, since when on the engine's clock, and why."""

    __pydantic_config__ = STRICT
    by: str
    since_s: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Ack:
    """The engine's answer to a decision, a renewal or a release."""

    accepted: bool
    epoch: int
    reason: str = ""
    clamped: dict[str, float] = field(default_factory=dict)
