"""What does a soak ask of the engine's control routes? Random decisions, good and hostile.

Called by `steering` once a second. Pure: what is drawn depends on the seed and on what
the engine said last.
"""

import json
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from serving.contracts import Decision, Envelope, Limits, encode
from serving.contracts.rules import RULES, with_rules
from serving.policies import POLICIES

CONTROLLER, INTRUDER = "soak", "soak-intruder"
_HUGE = 10**12


@dataclass(frozen=True, slots=True)
class EngineView:
    """What the soak knows of the engine: sizes, the epoch, and who holds the lease for sure."""

    envelope: Envelope
    epoch: int
    leased: bool


@dataclass(frozen=True, slots=True)
class Action:
    """One call of a control route. `must_be_refused`: an accepted one breaks a guarantee."""

    name: str
    path: str
    body: bytes
    must_be_refused: bool = False
    token: str | None = None  # instead of the right one
    ttl_s: float = 0.0  # of the lease that it asks for as the rightful controller


def draw_action(rng: random.Random, view: EngineView) -> Action:
    """The next call: a good decision about every other time."""
    if rng.random() < 0.5:
        return _good(rng, view)
    return rng.choice(_OTHERS)(rng, view)


def _decision(rng: random.Random, view: EngineView) -> Decision:
    policy = rng.choice(list(POLICIES))
    bounds = POLICIES[policy].param_bounds
    params = {name: rng.uniform(*bounds[name]) for name in bounds if rng.random() < 0.5}
    envelope = view.envelope
    small = rng.random() < 0.2  # a crawl, until the next decision
    limits = Limits(
        max_active_requests=rng.randint(1, 2 if small else envelope.max_active_requests),
        token_budget=rng.randint(1, 32) if small else rng.randint(64, envelope.token_budget),
        long_prefill_threshold=rng.choice((0, 0, 16, 256)),
    )
    limits = with_rules(limits, [rule for rule in RULES if rng.random() < 0.4])
    return Decision(
        CONTROLLER, view.epoch + rng.randint(1, 3), rng.uniform(2.0, 10.0), policy, params, limits,
        "soak",
    )  # fmt: skip


def _good(rng: random.Random, view: EngineView) -> Action:
    decision = _decision(rng, view)
    return _apply("decision", decision, ttl_s=decision.ttl_s)


def _renew(rng: random.Random, view: EngineView) -> Action:  # noqa: ARG001  one shape for all
    ttl_s = rng.uniform(1.0, 10.0)
    body = {"controller_id": CONTROLLER, "ttl_s": ttl_s}
    return Action("renewal", "/hmas/renew", _json(body), ttl_s=ttl_s)


def _release(rng: random.Random, view: EngineView) -> Action:  # noqa: ARG001  as above
    return Action("release", "/hmas/release", _json({"controller_id": CONTROLLER}))


def _outside(rng: random.Random, view: EngineView) -> Action:
    good = _decision(rng, view)
    limits = asdict(good.limits) | {
        "max_active_requests": rng.choice((-_HUGE, 0, _HUGE)),
        "token_budget": rng.choice((-_HUGE, 0, _HUGE)),
        "long_prefill_threshold": rng.choice((-_HUGE, _HUGE)),
        "prefill_share": rng.choice((-1e300, 1e300, float("nan"), float("inf"))),
    }
    body = encode(good) | {"limits": limits}
    return Action("limits far outside", "/hmas/apply", _json(body), ttl_s=good.ttl_s)


def _unacceptable(rng: random.Random, view: EngineView) -> Action:
    """A good decision but for one thing: its epoch, its lease, or its policy."""
    good = _decision(rng, view)
    name, changes = rng.choice((
        ("stale epoch", {"epoch": rng.choice((view.epoch, view.epoch - 1, 0, -_HUGE))}),
        ("absurd lease", {"ttl_s": rng.choice((0.0, -5.0, 1e12, float("nan"), float("inf")))}),
        ("unknown policy",
         {"policy": rng.choice(("", "magic", "fcfs ", "__class__")), "params": {}}),
    ))  # fmt: skip
    return _apply(name, replace(good, **changes), must_be_refused=True)


def _intrusion(rng: random.Random, view: EngineView) -> Action:
    good = replace(_decision(rng, view), controller_id=INTRUDER)
    other = {"controller_id": INTRUDER, "ttl_s": 5.0}
    if rng.random() < 0.5:
        return _apply("second controller", good, must_be_refused=view.leased)
    path = rng.choice(("/hmas/renew", "/hmas/release"))
    body = other if path == "/hmas/renew" else {"controller_id": INTRUDER}
    return Action("second controller", path, _json(body), must_be_refused=view.leased)


def _malformed(rng: random.Random, view: EngineView) -> Action:
    good = encode(_decision(rng, view))
    bodies = (
        b"",
        _json(good)[:-9],
        _json([good]),
        _json(good | {"epoch": "soon"}),
        _json(good | {"limits": None}),
        _json(good | {"params": {"kappa": "much"}}),
        _json(good | {"limits": good["limits"] | {"token_budget": 1.5}}),
        _json(good | {"surprise": 1}),
        _json({}),
    )
    return Action("malformed", "/hmas/apply", rng.choice(bodies), must_be_refused=True)


def _wrong_token(rng: random.Random, view: EngineView) -> Action:
    body = _json(encode(_decision(rng, view)))
    token = rng.choice(("wrong", "wrong wrong", "\u00e4"))
    return Action("wrong token", "/hmas/apply", body, must_be_refused=True, token=token)


# One thing out of three is wrong with what is unacceptable, so it comes up thrice as often.
_OTHERS: tuple[Callable[[random.Random, EngineView], Action], ...] = (
    _renew, _release, _outside, _unacceptable, _unacceptable, _unacceptable, _intrusion,
    _malformed, _wrong_token,
)  # fmt: skip


def _apply(
    name: str, decision: Decision, *, must_be_refused: bool = False, ttl_s: float = 0.0
) -> Action:
    return Action(name, "/hmas/apply", _json(encode(decision)), must_be_refused, ttl_s=ttl_s)


def _json(body: Any) -> bytes:
    return json.dumps(body).encode()  # NaN and Infinity as Python writes them: part of the point
