"""What may a controller ask of an engine, and what does the engine answer?"""

from dataclasses import dataclass, field

from serving.contracts.codec import STRICT
from serving.contracts.limits import Limits

PERSON = "person:"  # how a person's `controller_id` begins: it outranks every controller
PINNED_S = 10 * 365 * 86_400.0  # ttl_s of a person's decision that holds until it is released


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
