"""How would it go with what was told in force? Seen by the twin, from where the engine was last.

The controller's newest situation is in the ledger, so that nothing is asked of the engine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from inspect import signature
from typing import Any

from hmas_agents.config import Config
from hmas_agents.intent.acting import OF_CONTRACT, contract_with
from hmas_agents.intent.change import Change
from hmas_agents.ledger import LedgerError, LedgerReader
from hmas_agents.situation import Expected, Situation, SituationError, decode_situation
from hmas_agents.twin.preview import Group, preview
from hmas_agents.twin.process import InProcess
from hmas_agents.twin.twin import Twin
from serving.contracts import TraceRequest
from serving.contracts.contract import CUSTOM
from serving.policies import POLICIES, Policy

STALE_S = 600.0  # what was longer ago says nothing of what comes next
MIN_REPLAYED = 30  # fewer requests predict nothing


def foresee(config: Config, changes: Sequence[Change], now_s: float) -> dict[str, Any]:
    """Attainment now and as if all changes held from now on, JSON-ready; or `why_not`."""
    try:
        with LedgerReader(config.ledger.path) as reader:
            newest = reader.list_decisions(horizon="long", limit=1)
        situation = decode_situation(newest[0].record.situation) if newest else None
    except (LedgerError, SituationError) as error:
        return {"why_not": str(error)}
    if situation is None or now_s - situation.snapshot.now_s > STALE_S:
        return {"why_not": f"`hmas run` has looked at nothing in the last {STALE_S / 60:.0f} min"}
    if len(situation.requests) < MIN_REPLAYED:
        return {"why_not": f"fewer than {MIN_REPLAYED} requests came lately"}
    then, limits = as_if(situation, changes)
    twin = config.twin
    found = preview(
        situation, then, limits, groups_of(changes), futures=twin.draws,
        horizon_s=Twin(twin, forecaster=InProcess()).horizon_s(situation), limit_s=twin.budget_s,
    )  # fmt: skip
    snapshot, notes = situation.snapshot, []
    policy, rules = snapshot.policy, snapshot.limits.triage or snapshot.limits.tenant_buckets
    if not (rules or _weighs(POLICIES[policy], snapshot.params)) and _are_weights(changes):
        can = ", ".join(n for n, each in POLICIES.items() if _weighs(each, {"kappa": 1.0}))
        notes.append(
            f"{policy} as it is set does not look at weights, nor does a rule: {can} can, and "
            "triage and buckets do"
        )
    return {
        "seen_s": snapshot.now_s, "policy": policy, "notes": notes,
        "futures": found.futures, "horizon_s": found.horizon_s,
        "shares": [asdict(each) for each in found.shares],
    }  # fmt: skip


def _weighs(policy: Policy, params: Mapping[str, float]) -> bool:
    """Whether its order goes by weights; where kappa is 0, keys do not."""
    kappa = {**policy.default_params, **params}.get("kappa", 1.0)
    return policy.shares or ("weight" in signature(policy.key).parameters and kappa > 0.0)


def _are_weights(changes: Sequence[Change]) -> bool:
    return any(each.kind == "weight" for each in changes)


def as_if(situation: Situation, changes: Sequence[Change]) -> tuple[Situation, dict[str, float]]:
    """The situation as if all changes held from now on, and the limits that come with them.

    Requests that are inside keep their targets; those to come have the new ones, unless they bring
    their own.
    """
    settings, now_s = situation.settings, situation.snapshot.now_s
    wanted = [each for each in changes if each.kind in OF_CONTRACT]
    scales = {each.slo_class: each.amount for each in wanted if each.kind == "slo_scale"}
    expected = tuple(
        Expected(each.amount, now_s, None, each.tenant, each.slo_class)
        for each in changes
        if each.kind == "expect"
    )
    imagined = replace(
        situation,
        settings=settings.under(contract_with(settings.contract, wanted)),
        requests=tuple(_promised(each, scales) for each in situation.requests),
        expected=situation.expected + expected,
    )
    shed = [each.amount for each in changes if each.kind == "shed"]
    return imagined, {"shed": shed[-1]} if shed else {}


def groups_of(changes: Sequence[Change]) -> list[Group]:
    """Everybody, each that is named, and the others; where weights change, all by weight, too."""
    named: dict[str, Group] = {}
    for each in changes:
        whose = [name for name in (each.tenant, each.slo_class) if name is not None]
        if whose:
            named[", ".join(whose)] = Group(", ".join(whose), each.tenant, each.slo_class)
    others = [Group("others", others=True)] if named else []
    weighed = [Group("all by weight", weighted=True)] * _are_weights(changes)
    return [Group("all"), *weighed, *named.values(), *others]


def _promised(one: TraceRequest, scales: dict[str | None, float]) -> TraceRequest:
    factor = scales.get(one.slo_class, scales.get(None, 1.0))
    if one.slo is None or one.slo_class == CUSTOM or factor == 1.0:
        return one
    return replace(one, slo=one.slo.scaled(factor))
