"""Is a contract checked as a whole, and does the engine go by the one in force?"""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from serving.contracts import (
    SLO,
    SLO_CLASSES,
    ClassTerms,
    Contract,
    ContractChange,
    ContractError,
    ContractInForce,
    Decision,
    Limits,
    TenantTerms,
    TraceRequest,
    contract_changes,
)
from serving.contracts.settings import EngineSettings, judge_change, load_contract
from serving.engines.compiled import CompiledEngine
from serving.engines.simulated import SimulatedEngine
from serving.perception.attributes import sign_tenant, slo_of, tenant_of
from tests.serving.samples import profile, shares

EXAMPLE = Path(__file__).parents[3] / "serving/contracts/contract.toml"
KEY = "sha256:" + "a" * 64


def written(tmp_path, text: str) -> Path:
    file: Path = tmp_path / "contract.toml"
    file.write_text(text)
    return file


# -- the file ----------------------------------------------------------------------------


def test_the_example_is_a_contract_and_explains_every_key():
    contract = load_contract(EXAMPLE)
    assert contract.terms_of("acme").weight == 4.0
    assert contract.sheddable == ("batch",)
    for table in (Contract, TenantTerms, ClassTerms):
        for key in table.model_fields:
            assert key in EXAMPLE.read_text(), f"{table.__name__}.{key}"


@pytest.mark.parametrize(
    ("text", "line", "named"),
    [
        ("[tenants.acme]\nwieght = 4\n", 2, "tenants.acme.wieght: unknown key; did you mean"),
        ("[tenants.acme]\nfloor = 0.1\nweight = -1\n", 3, "tenants.acme.weight"),
        ("[tenants.a]\nfloor = 0.5\n[tenants.b]\nfloor = 0.5\n", 1, "tenants: floors add up to 1"),
        ('[tenants."a.b c"]\nclasses = ["gold"]\n', 2, "tenants.a.b c.classes: unknown SLO class"),
        ("\n[classes.gold]\nttft_ms = 0\n", 3, "classes.gold.ttft_ms"),
        ('[tenants.a]\nweight=1\n[tenants." b"]\nweight=1\n', 3, "a name is printable"),
        ('default_class = "gold"\n', 1, "default_class: unknown SLO class 'gold'; there are int"),
        ('[tenants.a]\nclasses = ["custom"]\n', 2, "name one more class"),
        ('[tenants.a]\napi_key_hashes = ["secret"]\n', 2, "tenants.a.api_key_hashes.0"),
        (f'[tenants.a]\napi_key_hashes = ["{KEY}"]\n[tenants.b]\napi_key_hashes = ["{KEY}"]\n', 4,
         "'a' has the same key"),
        (f'believe_clients = true\n[tenants.a]\napi_key_hashes = ["{KEY}"]\n', 1,
         "believe_clients: lets any client claim"),
        ("[tenants.a\n", 1, "not TOML"),
    ],
)  # fmt: skip
def test_a_broken_file_names_line_key_and_problem(text, line, named, tmp_path):
    file = written(tmp_path, text)
    with pytest.raises(ContractError) as caught:
        load_contract(file)
    assert str(caught.value).startswith(f"{file}:{line}: ")
    assert named in str(caught.value)


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(ContractError, match="cannot be read: No such file"):
        load_contract(tmp_path / "none.toml")


# -- what it says ------------------------------------------------------------------------

CONTRACT = Contract(
    tenants={
        "acme": TenantTerms(weight=4.0, floor=0.2, classes=("interactive", "custom")),
        "bulk": TenantTerms(classes=("document", "batch"), api_key_hashes=(KEY,)),
        "default": TenantTerms(weight=0.5, classes=("best_effort",)),
    },
    classes={"gold": ClassTerms(ttft_ms=100.0), "batch": ClassTerms(sheddable=True)},
)
UNDER = EngineSettings(contract=CONTRACT, slo_scale=2.0)


def test_a_class_without_targets_keeps_the_built_in_ones_and_a_new_one_has_none():
    assert CONTRACT.slo_of("batch") == SLO_CLASSES["batch"]
    assert CONTRACT.slo_of("gold") == SLO(100)
    assert Contract(classes={"new": ClassTerms()}).slo_of("new") == SLO()
    assert Contract(classes={"batch": ClassTerms(ttft_ms=9)}).slo_of("batch") == SLO(9)
    assert CONTRACT.slo_of("nope") is None


def test_an_unlisted_tenant_has_the_terms_of_default():
    assert CONTRACT.terms_of("stranger").weight == 0.5
    assert Contract().terms_of("stranger") == TenantTerms()


@pytest.mark.parametrize(
    ("tenant", "slo_class", "weight"),
    [("acme", "interactive", 4.0), ("acme", "gold", 8.0), ("stranger", "gold", 1.0),
     ("bulk", "custom", 1.0)],
)  # fmt: skip
def test_a_request_weighs_what_its_tenant_weighs_times_its_class(tenant, slo_class, weight):
    gold = {"gold": ClassTerms(ttft_ms=100.0, weight=2.0)}
    contract = CONTRACT.model_copy(update={"classes": gold})
    assert contract.weight_of(tenant, slo_class) == weight


@pytest.mark.parametrize(
    ("tenant", "asked", "given"),
    [
        ("acme", {"slo_class": "interactive"}, ("interactive", SLO(1000, 60))),
        ("acme", {"slo_class": "gold"}, ("interactive", SLO(1000, 60))),  # its first one
        ("acme", {"slo_ttft_ms": 5}, ("custom", SLO(5))),
        ("bulk", {"slo_ttft_ms": 5}, ("batch", SLO(e2e_ms=1_200_000))),  # default_class, allowed
        ("bulk", {"slo_class": "document"}, ("document", SLO(30_000, 300))),
        ("stranger", {"slo_class": "interactive"}, ("best_effort", SLO())),
    ],
)
def test_a_class_that_a_tenant_may_not_ask_for_is_not_given(tenant, asked, given):
    assert slo_of(asked, UNDER, tenant) == given


def test_a_client_is_believed_only_if_the_contract_says_so(monkeypatch):
    claim = {"tenant": "acme"}
    assert tenant_of(claim, None, EngineSettings()) == "default"
    assert tenant_of(claim, "lora-1", EngineSettings()) == "lora-1"
    believing = EngineSettings(contract=Contract(believe_clients=True))
    assert tenant_of(claim, "lora-1", believing) == "acme"
    monkeypatch.setenv("HMAS_TOKEN", "t")
    signed = {**claim, "tenant_proof": sign_tenant("acme")}
    assert tenant_of(signed, None, EngineSettings()) == "acme"
    assert tenant_of({**signed, "tenant": "bulk"}, None, EngineSettings()) == "default"


def test_who_was_shown_no_keys_changes_a_contract_without_taking_them_away():
    shown = CONTRACT.without_keys()
    wanted = shown.model_copy(update={"default_class": "gold"})
    held = ContractInForce(3, CONTRACT)
    ack, settings = judge_change(held, ContractChange(wanted, 4, keep_keys=True), UNDER)
    assert ack.changes == ("default_class: batch -> gold",)
    assert settings.contract.tenants == CONTRACT.tenants
    ack, settings = judge_change(held, ContractChange(wanted, 4), UNDER)
    assert "tenants.bulk.api_key_hashes: 0 added, 1 removed" in ack.changes
    believing = ContractChange(wanted.model_copy(update={"believe_clients": True}), 4, "", True)
    ack, _ = judge_change(held, replace(believing, keep_keys=True), UNDER)
    assert (ack.accepted, "believe_clients" in ack.reason) == (False, True)


def test_changes_name_each_key_and_no_hash():
    new = Contract(
        default_class="gold",
        tenants={
            "acme": TenantTerms(weight=1.0, floor=0.2, classes=("interactive", "custom")),
            "bulk": TenantTerms(classes=("document", "batch"), api_key_hashes=()),
            "late": TenantTerms(max_waiting=5),
        },
        classes={"gold": ClassTerms(ttft_ms=100.0, weight=0.3)},
    )
    assert contract_changes(CONTRACT, new) == (
        "default_class: batch -> gold",
        "tenants.acme.weight: 4 -> 1",
        "tenants.bulk.api_key_hashes: 0 added, 1 removed",
        "tenants.default: gone",
        "tenants.default.weight: 0.5 -> 1",
        "tenants.default.classes: [best_effort] -> []",
        "tenants.late: new",
        "tenants.late.max_waiting: none -> 5",
        "classes.batch: gone",
        "classes.batch.sheddable: true -> false",
        "classes.gold.weight: 1 -> 0.3",
    )
    assert contract_changes(CONTRACT, CONTRACT) == ()


# -- in the engine, in virtual time --------------------------------------------------------


def applies(engine: SimulatedEngine, change: ContractChange) -> Callable[[], None]:
    """A ticker that puts the contract in force, and is refused when it does so again."""

    def apply() -> None:
        engine.apply_contract(change)

    return apply


def flooded(engine: SimulatedEngine, ticks=()) -> list[float]:
    """Two tenants flood; the work of `a` over that of `b`, as decoded and prefilled per second."""
    requests = [
        TraceRequest(i / 60, 100, 20, name, "batch") for i in range(2400) for name in ("a", "b")
    ]
    done: list[dict[str, int]] = []

    def count() -> None:
        counters = {row.tenant: row for row in engine.snapshot().counters}
        done.append({
            name: counters[name].prompt_tokens + counters[name].output_tokens if name in counters
            else 0 for name in "ab"
        })  # fmt: skip

    engine.run(requests, [(5.0, count), *ticks], until_s=60.1)
    rates = [{n: after[n] - before[n] for n in "ab"} for before, after in pairwise(done)]
    return [rate["a"] / max(1, rate["b"]) for rate in rates]


def test_a_weight_that_changes_while_it_runs_changes_the_share_of_work_under_fair():
    engine = SimulatedEngine(profile(max_active_requests=8), EngineSettings())
    assert engine.apply(Decision("me", 1, 1e4, "fair", {}, Limits(8, 512))).accepted
    acks = []

    def change() -> None:
        if engine.now() < 31.0:
            acks.append(engine.apply_contract(ContractChange(shares({"a": 4.0}), 1, "test")))

    share = flooded(engine, [(30.0, change)])
    assert acks[0].accepted
    assert acks[0].changes == ("tenants.a: new", "tenants.a.weight: 1 -> 4")
    before, after = share[:5], share[7:]

    assert all(0.8 < one < 1.25 for one in before)
    assert all(3.0 < one < 5.3 for one in after)
    held = engine.contract()
    assert (held.epoch, held.by) == (1, "test")
    assert held.since_s >= 30.0
    assert engine.snapshot().contract_epoch == 1


def test_what_is_inside_keeps_its_targets_and_what_comes_has_the_new_ones():
    engine = SimulatedEngine(profile(max_active_requests=1), EngineSettings())
    targets = Contract(classes={"interactive": ClassTerms(ttft_ms=9.0)})
    requests = [TraceRequest(at_s, 50, 50, "a", "interactive") for at_s in (0.0, 0.0, 0.0, 2.0)]
    ticks = [(0.5, applies(engine, ContractChange(targets, 1)))]
    outcomes = engine.run(requests, ticks)
    assert outcomes[2].finished_s > 0.6, "it was inside when the contract changed"
    assert [o.slo for o in engine.journal(0).outcomes] == [SLO(500, 30)] * 3 + [SLO(9)]


@pytest.mark.parametrize("weights", [{"late": 100.0}, {}])
@pytest.mark.parametrize("make", [SimulatedEngine, CompiledEngine])
def test_who_waits_is_weighed_anew(make, weights):
    """Of two tenants that wait the one that came later is served first, once it weighs more."""
    engine = make(profile(max_active_requests=1), EngineSettings())
    engine.apply(Decision("me", 1, 1e4, "sjf", {"kappa": 1000.0}, Limits(1, 512)))
    requests = [
        TraceRequest(0.1 * i, 400, 100, name, "batch")
        for i, name in enumerate(["first", "early", "early", "late", "late"])
    ]
    ticks = [(0.45, applies(engine, ContractChange(shares(weights), 1)))]
    outcomes = engine.run(requests, ticks)
    served = sorted(outcomes, key=lambda one: one.finished_s)
    after = ["late", "late", "early", "early"] if weights else ["early", "early", "late", "late"]
    assert [one.tenant for one in served] == ["first", *after]


def test_a_floor_that_is_promised_later_is_kept():
    engine = SimulatedEngine(profile(max_active_requests=4), EngineSettings())
    hog = [TraceRequest(0.0, 200, 20, "hog", "batch") for _ in range(400)]
    meek = [TraceRequest(1.0, 200, 20, "meek", "batch") for _ in range(20)]
    change = ContractChange(shares({}, {"meek": 0.5}), 1)
    ticks = [(5.0, applies(engine, change))]
    outcomes = engine.run([*hog, *meek], ticks)
    ends = {name: [o.finished_s for o in outcomes if o.tenant == name] for name in ("hog", "meek")}
    assert min(ends["meek"]) > 5.0, "first come, first served, until then"
    assert max(ends["meek"]) < 0.5 * max(ends["hog"])
    assert engine.snapshot().rules["floor_served"] > 0


def test_a_refused_contract_leaves_the_old_one():
    settings = EngineSettings(
        contract=Contract(classes={"gold": ClassTerms()}), gateway_objectives={"premium": "gold"}
    )
    engine = SimulatedEngine(profile(), settings)
    held = engine.contract()
    refused = engine.apply_contract(ContractChange(Contract(), 1))
    assert not refused.accepted
    assert "'premium' leads to the unknown SLO class 'gold'" in refused.reason
    old = engine.apply_contract(ContractChange(held.contract, 0))
    assert not old.accepted
    assert "epoch 0 is not above the present 0" in old.reason
    looked = engine.apply_contract(ContractChange(held.contract, 1, check_only=True))
    assert looked.accepted
    assert (looked.epoch, looked.changes) == (0, ())
    assert engine.contract() == held
    assert engine.snapshot().policy_errors == 0


def test_a_tenant_that_gets_its_own_lane_while_it_is_inside_leaves_the_counts_right():
    """More tenants than lanes: the last one waits among the others when it is listed."""
    engine = SimulatedEngine(
        profile(max_active_requests=1), EngineSettings(max_tenants=2, contract=Contract())
    )
    requests = [
        TraceRequest(0.1 * (i >= 3), 50, 20, name, "batch")
        for i, name in enumerate(["a", "b", "late", "late", "a"])
    ] + [TraceRequest(5.0, 50, 20, "late", "batch")]
    ticks = [(0.2, applies(engine, ContractChange(shares({"late": 2.0}), 1)))]
    engine.run(requests, ticks)
    totals = engine.scheduler.hmas_totals()
    assert totals.loads == ()
    assert {row.tenant: (row.received, row.finished) for row in totals.counters} == {
        "a": (2, 2), "b": (1, 1), "other": (2, 2), "late": (1, 1)
    }  # fmt: skip


def test_classes_that_become_sheddable_may_be_shed_from_then_on():
    engine = SimulatedEngine(profile(), EngineSettings())
    decision = Decision("me", 1, 1e4, "fcfs", {}, Limits(8, 512, shed=1.0))
    assert engine.apply(decision).clamped == {"shed": 0.0}
    sheds = Contract(classes={"batch": ClassTerms(sheddable=True)})
    assert engine.apply_contract(ContractChange(sheds, 1)).accepted
    assert engine.snapshot().envelope.sheddable == ("batch",)
    assert engine.apply(Decision("me", 2, 1e4, "fcfs", {}, Limits(8, 512, shed=1.0))).clamped == {}
    (outcome,) = engine.run([TraceRequest(0.0, 50, 4, "a", "batch")])
    assert outcome.finish == "rejected"
