"""What can an engine do of what is wanted, and how does its contract look then?

`weight`, `floor` and `slo_scale` are changes of the contract in force, `shed` is a limit, `expect`
is for the twin. What no engine does yet is refused here, and nowhere pretended.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict

from pydantic import ValidationError

from hmas_agents.intent.change import Change
from serving.contracts import SLO, Contract, ContractInForce
from serving.contracts.contract import ClassTerms, TenantTerms

OF_CONTRACT = ("weight", "floor", "slo_scale")


def refusals(changes: Sequence[Change], held: ContractInForce) -> list[str]:
    """Why these cannot be done on an engine that holds this contract; empty where they can."""
    found = [problem for each in changes for problem in _problems(each, held)]
    if not found:
        try:
            contract_with(held.contract, changes)
        except ValidationError as error:
            found.append(error.errors()[0]["msg"])
    return found


def _problems(change: Change, held: ContractInForce) -> Iterator[str]:
    kind, tenant, slo_class = change.kind, change.tenant, change.slo_class
    sheddable = held.contract.sheddable
    listed = ", ".join(sheddable) or "none"
    if kind == "floor" and slo_class is not None:
        yield "floor: tenants have one, SLO classes have none yet: name a tenant"
    elif kind == "weight" and tenant is not None and slo_class is not None:
        yield "weight: of a tenant or of an SLO class, not of one class of one tenant: name one"
    elif kind == "slo_scale" and tenant is not None:
        yield "slo_scale: targets are those of a class, for all its tenants: name a class"
    elif kind == "shed" and tenant is not None:
        yield "shed: SLO classes can be shed, single tenants cannot yet: name a class"
    elif kind == "shed" and (not sheddable or slo_class not in {None, *sheddable}):
        yield f"shed: only classes with `sheddable = true` in the contract: {listed}"
    elif kind == "shed" and slo_class is not None and len(sheddable) > 1:
        yield f"shed: one share is for all sheddable classes ({listed}): name no class"


def contract_with(base: Contract, changes: Iterable[Change]) -> Contract:
    """The contract under these changes, one after the other; a later one of the same wins.

    Raises:
        ValidationError: what comes out is no contract: floors add up to too much.
    """
    tenants, classes = dict(base.tenants), dict(base.classes)
    for change in changes:
        kind, tenant, slo_class = change.kind, change.tenant, change.slo_class
        if kind in {"weight", "floor"} and slo_class is None:
            for name in [tenant] if tenant is not None else list(tenants):
                own = tenants.get(name) or _unlisted(base, name)
                tenants[name] = own.model_copy(update={kind: change.amount})
        if kind in {"weight", "slo_scale"} and tenant is None:
            for name in [slo_class] if slo_class is not None else base.class_names:
                terms = classes.get(name, ClassTerms())
                classes[name] = terms.model_copy(update=_of_class(base, name, change))
    known = {n: t for n, t in classes.items() if n in base.classes or t != ClassTerms()}
    return Contract(**{**dict(base), "tenants": tenants, "classes": known})


def _unlisted(base: Contract, name: str) -> TenantTerms:
    return base.terms_of(name).model_copy(update={"floor": 0.0, "api_key_hashes": ()})


def _of_class(base: Contract, name: str, change: Change) -> dict[str, float | None]:
    """What a change makes of the terms of a class; targets that it leaves are as in its table."""
    if change.kind == "weight":
        return {"weight": change.amount}
    if change.amount == 1:
        return asdict(base.classes.get(name, ClassTerms()).slo)
    return asdict((base.slo_of(name) or SLO()).scaled(change.amount))
