"""Does a tenant or a class of more weight get more of an engine that cannot serve everybody?"""

import random
from functools import cache
from itertools import pairwise

import pytest

from serving.contracts import Contract, Decision, Limits, TenantTerms, TraceRequest
from serving.contracts.contract import ClassTerms
from serving.contracts.rules import with_rules
from serving.contracts.settings import EngineSettings
from serving.engines.compiled import CompiledEngine
from tests.serving.engines.hooked_cases import START_RULES
from tests.serving.samples import profile

WEIGHTS = (0.3, 1.0, 3.0, 10.0)
SETTINGS = {"edf": {"kappa": 3.0}, "srpt": {}}
PROFILE = profile(kv_blocks=40_000, max_active_requests=256, token_budget=2048)
NOISE = 0.01


@cache
def overload() -> tuple[TraceRequest, ...]:
    """Three tenants that send alike, more than can be served in time."""
    draw, now_s, sent = random.Random(3), 0.0, list[TraceRequest]()
    while now_s < 120.0:
        now_s += draw.expovariate(22.0)
        prompt, output = draw.lognormvariate(6.8, 0.7), draw.lognormvariate(4.9, 0.8)
        sent.append(
            TraceRequest(
                now_s, max(1, min(int(prompt), 8000)), max(2, int(output)),
                draw.choice(["acme", "beta", "gamma"]), draw.choice(["interactive", "document"]),
            )
        )  # fmt: skip
    return tuple(sent)


def attained(policy: str, contract: Contract, name: str) -> tuple[float, float]:
    """Attainment of the tenant or class of that name, and of the others."""
    engine = CompiledEngine(PROFILE, EngineSettings(contract=contract))
    limits = with_rules(Limits(PROFILE.max_active_requests, PROFILE.token_budget), START_RULES)
    assert engine.apply(Decision("me", 1, 3600.0, policy, SETTINGS[policy], limits)).accepted
    outcomes = engine.run(overload())
    met: dict[bool, list[bool]] = {True: [], False: []}
    for one in outcomes:
        met[name in {one.tenant, one.slo_class}].append(one.met)
    own, others = (sum(met[is_own]) / len(met[is_own]) for is_own in (True, False))
    return own, others


@pytest.mark.parametrize("policy", SETTINGS)
@pytest.mark.parametrize("name", ["acme", "document"])
def test_more_weight_never_serves_less_and_is_paid_by_the_others(policy, name):
    shares = []
    for weight in WEIGHTS:
        contract = Contract(tenants={name: TenantTerms(weight=weight)})
        if name == "document":
            contract = Contract(classes={name: ClassTerms(weight=weight)})
        shares.append(attained(policy, contract, name))
    print(f"\n{policy}, {name} and others at weights {WEIGHTS}: {shares}")
    own, others = zip(*shares, strict=True)
    assert own[0] + 0.1 < own[-1]
    assert all(less < more + NOISE for less, more in pairwise(own))
    assert others[0] > others[-1]
