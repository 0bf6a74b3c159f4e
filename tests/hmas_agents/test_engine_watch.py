"""What does the long horizon see of an engine with several ranks?"""

from dataclasses import replace

import pytest

from hmas_agents.config import load_config
from hmas_agents.engine_watch import MAX_WINDOW, EngineWatch
from hmas_agents.twin.forecast import Forecasts
from hmas_agents.twin.futures import Futures
from hmas_agents.twin.question import Candidate
from serving.contracts import (
    SLO,
    ClassTerms,
    Contract,
    ContractInForce,
    ResidentPage,
    ResidentRequest,
    Snapshot,
    TenantTerms,
)
from serving.engines.ranks import merge_snapshots
from tests.fakes import FakeEngine
from tests.hmas_agents.samples import arrival, outcome


class Ranks(FakeEngine):
    """Several equal ranks; the journal is the first one's."""

    count = 1

    def snapshot(self) -> Snapshot:
        shot = super().snapshot()
        ranks = [replace(shot, rank=i, journal_head=0) for i in range(1, self.count)]
        return merge_snapshots([shot, *ranks])


@pytest.mark.parametrize(("ranks", "numbers"), [(1, range(60)), (2, range(0, 60, 2)),
                                                (3, range(0, 60, 3))])  # fmt: skip
def test_the_twin_is_given_one_ranks_share_of_the_window(ranks, numbers):
    engine = Ranks(now_s=100.0)
    engine.count = ranks
    watch = EngineWatch(engine, load_config(None), None)
    watch.look()
    engine.events += [arrival(i, 100.0 + i, prompt_tokens=i + 1) for i in range(60)]
    engine.now_s = 160.0
    requests = watch.situation().requests
    assert [request.prompt_tokens - 1 for request in requests] == list(numbers)
    assert requests[0].arrival_s == 0.0


class GoesOn(FakeEngine):
    """Between two questions a request comes, is begun and has its first token."""

    def inside(self, limit: int = 5000) -> ResidentPage:
        self.now_s += 0.2
        late = ResidentRequest(
            "late", self.now_s - 0.15, "acme", "interactive", SLO(ttft_ms=500), 300, 50,
            running=True, computed_tokens=300, output_tokens=1, admitted_s=self.now_s - 0.1,
            first_token_s=self.now_s - 0.05,
        )  # fmt: skip
        early = replace(late, request_id="early", arrival_s=50.0, admitted_s=60.0)
        return ResidentPage(self.now_s, (early, late))


def test_what_happened_after_the_snapshot_happens_at_it_so_that_the_twin_can_begin():
    watch = EngineWatch(GoesOn(now_s=100.0), load_config(None), None)
    situation = watch.situation()
    now_s = situation.snapshot.now_s
    early, late = situation.inside.requests
    assert (early.arrival_s, early.admitted_s, early.first_token_s) == (50.0, 60.0, now_s)
    assert (late.arrival_s, late.admitted_s, late.first_token_s) == (now_s,) * 3
    # The early one's first token was late already: nothing to predict.
    assert Futures(situation, 5.0).draw(0).weights.sum() == 1
    ours = replace(situation, own_tenants=("acme",))
    assert Futures(ours, 5.0).draw(0).weights.sum() == 0


def test_the_newest_requests_are_kept_when_there_are_too_many_for_the_twin():
    engine = Ranks(now_s=100.0)
    engine.count = 2
    watch = EngineWatch(engine, load_config(None), None)
    watch.look()
    came = 2 * MAX_WINDOW + 100
    engine.events += [arrival(i, 100.0 + i / 1000, prompt_tokens=i + 1) for i in range(came)]
    engine.now_s = 130.0
    situation = watch.situation()
    assert len(situation.requests) == MAX_WINDOW
    assert situation.requests[0].prompt_tokens - 1 == 100
    assert situation.span_s == pytest.approx(130.0 - 100.1)


TIGHT, LOOSE = SLO(ttft_ms=1.0), SLO(ttft_ms=60_000.0)


@pytest.mark.parametrize("last", [TIGHT, LOOSE], ids=["tight last", "loose last"])
def test_each_request_is_predicted_by_its_own_targets_whichever_came_last(last):
    """All of them are of the class `custom`; the policy agent's own requests are, too."""
    engine = FakeEngine(now_s=100.0)
    watch = EngineWatch(engine, load_config(None), None)
    watch.look()
    known = {"slo_class": "custom", "prompt_tokens": 50, "max_tokens": 8}
    engine.events += [
        arrival(i, 100.0 + i / 2, slo=TIGHT if i % 2 else LOOSE, **known) for i in range(40)
    ]
    engine.events.append(arrival(40, 120.0, slo=last, tenant="hmas", **known))
    engine.now_s = 120.0
    forecasts = Forecasts(watch.situation(), 10.0)
    assert forecasts.forecast(Candidate("edf"), seed=0).worth == pytest.approx(0.5, abs=0.11)
    assert forecasts.offered > 10


CONTRACT = Contract(
    tenants={"acme": TenantTerms(weight=4.0, floor=0.3)}, classes={"gold": ClassTerms(ttft_ms=90.0)}
)


class Impatient(FakeEngine):
    """Its operator has set a ceiling and a bucket, and has a contract with a tenant."""

    def contract(self) -> ContractInForce:
        return ContractInForce(3, CONTRACT, slo_scale=2.0)

    def snapshot(self) -> Snapshot:
        shot = super().snapshot()
        return replace(shot, envelope=replace(shot.envelope, max_wait_s=30.0, bucket_s=2.0))


def test_the_twin_runs_under_the_engines_contract_ceiling_and_bucket():
    watch = EngineWatch(Impatient(now_s=100.0), load_config(None), None)
    settings = watch.situation().settings
    assert (settings.max_wait_s, settings.bucket_s) == (30.0, 2.0)
    assert settings.contract == CONTRACT
    assert settings.slo_of("gold") == SLO(ttft_ms=180.0)


def test_a_state_has_the_terms_of_the_contract_that_are_not_the_default_ones():
    contract = Contract(
        tenants={
            "acme": TenantTerms(weight=4.0, floor=0.3), "beta": TenantTerms(max_waiting=9),
            "hmas": TenantTerms(weight=8.0),
        },
        classes={
            "gold": ClassTerms(ttft_ms=90.0), "batch": ClassTerms(sheddable=True),
            "document": ClassTerms(ttft_ms=9000.0), "bulk": ClassTerms(),
        },
    )  # fmt: skip
    config = load_config(None, {"model.enabled": True, "model.tenant": "hmas"})
    engine = FakeEngine(now_s=100.0, held_contract=ContractInForce(0, contract))
    state = EngineWatch(engine, config, None).situation().state
    assert (state.weights, state.floors) == ({"acme": 4.0}, {"acme": 0.3})
    assert state.targets == {"gold": SLO(90.0), "document": SLO(9000.0), "bulk": SLO()}


class Caching(FakeEngine):
    """It caches prefixes."""

    def snapshot(self) -> Snapshot:
        shot = super().snapshot()
        return replace(shot, envelope=replace(shot.envelope, prefix_caching=True))


@pytest.mark.parametrize(("cached", "met"), [(0, 0.0), (1536, 1.0)], ids=["cold", "hits"])
def test_the_twins_future_finds_in_the_cache_what_the_engine_has_found(cached, met):
    """A cold prompt takes 61 ms of prefill, one of every 50 ms; with hits it takes 15 ms."""
    engine = Caching(now_s=100.0)
    watch = EngineWatch(engine, load_config(None), None)
    watch.look()
    known = {"prompt_tokens": 2040, "max_tokens": 4, "slo": SLO(ttft_ms=50.0)}
    for i in range(400):
        engine.events.append(arrival(i, 100.0 + i / 20, prefix=(1, 2, 3), **known))
        after = outcome(i, 100.0 + i / 20, 0.1, cached_tokens=cached, output_tokens=2,
                        prompt_tokens=2040)  # fmt: skip
        engine.events.append(after)
    engine.now_s = 120.0
    situation = watch.situation()
    assert {(r.cached_tokens, r.prefix) for r in situation.requests} == {
        (cached, (1, 2, 3)[: cached // 512])
    }
    attainment = Forecasts(situation, 10.0).forecast(Candidate("fcfs"), seed=0).attainment
    assert attainment == pytest.approx(met, abs=0.05)


def test_an_engine_that_has_started_anew_is_asked_for_its_contract_though_its_epoch_is_the_same():
    engine = FakeEngine(now_s=100.0)
    watch = EngineWatch(engine, load_config(None), None)
    watch.look()
    engine.held_contract = ContractInForce(0, Contract(tenants={"acme": TenantTerms(weight=3)}))
    engine.started_s, engine.now_s = 150.0, 160.0
    engine.events = [arrival(0, 155.0, tenant="acme")]
    assert watch.look()[1].weight_by_tenant == {"acme": 3.0}
