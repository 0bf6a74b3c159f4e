"""Is the hooked scheduler stock vLLM when it does not act, and are its books right?

vLLM's real scheduler and KV-cache manager in virtual time.
"""

import functools
import itertools
from dataclasses import replace

import pytest
from vllm.config import SchedulerConfig
from vllm.v1.request import RequestStatus

from serving.contracts import Limits, TraceRequest
from serving.contracts.rules import RULES, with_rules
from serving.engines import simulated, virtual_vllm
from serving.engines.simulated import SimulatedEngine
from serving.engines.tickers import Ticker
from tests.serving.samples import decision, mixed_load, profile, sessions
from tests.serving.simulation import SETTINGS, Run, journal_of, simulate, stock_limits

ROOMY, TIGHT = profile(20_000), profile(900, max_active_requests=128)
CALM = mixed_load(2000, 40.0, seed=1)
LONG_ANSWERS = mixed_load(400, 40.0, seed=2, mean_output_tokens=120.0)


@pytest.fixture(scope="module")
def tight() -> Run:
    return simulate(TIGHT, LONG_ANSWERS)


def test_without_a_controller_2000_requests_are_scheduled_exactly_as_by_stock_vllm():
    stock, hooked = simulate(ROOMY, CALM, stock=True), simulate(ROOMY, CALM)
    assert len(hooked.steps) > 2000
    assert hooked.steps == stock.steps
    assert [o.finished_s for o in hooked.outcomes] == [o.finished_s for o in stock.outcomes]
    assert hooked.engine.snapshot().policy_errors == 0


@pytest.mark.parametrize(
    ("machine", "answer_tokens"), [(ROOMY, 40.0), (TIGHT, 160.0)], ids=["roomy", "tight"]
)
def test_with_prefix_caching_too_the_schedule_is_stocks(machine, answer_tokens):
    """Chats that grow: what a turn finds in the cache depends on all that came before it."""
    caching, load = replace(machine, prefix_caching=True), sessions(400, 12.0, 3, answer_tokens)
    stock, hooked = simulate(caching, load, stock=True), simulate(caching, load)
    assert hooked.steps == stock.steps
    assert [o.finished_s for o in hooked.outcomes] == [o.finished_s for o in stock.outcomes]
    found = [o.cached_tokens for o in stock.outcomes]
    assert [o.cached_tokens for o in hooked.outcomes] == found
    _, noted = journal_of(hooked.engine)
    assert {o.request_id: o.cached_tokens for o in noted} == {
        f"r{i}": tokens for i, tokens in enumerate(found)
    }
    assert (stock.preemptions > 20) == (machine is TIGHT), "the case is worth its name"
    assert 0.15 < sum(found) / sum(r.prompt_tokens for r in load) < 0.9
    assert hooked.engine.snapshot().policy_errors == 0
    cold = simulate(machine, load, stock=True)
    assert cold.outcomes[-1].finished_s > stock.outcomes[-1].finished_s


def test_preemptions_and_resumptions_are_stock_vllms_too(tight):
    stock = simulate(TIGHT, LONG_ANSWERS, stock=True)
    resumed = sum(len(step[2]) for step in stock.steps)
    assert min(stock.preemptions, resumed) > 20, "the case is worth its name"
    assert tight.steps == stock.steps
    assert tight.engine.snapshot().kv.preemptions == stock.preemptions


@pytest.mark.parametrize(
    ("machine", "load"), [(ROOMY, CALM[:600]), (TIGHT, LONG_ANSWERS)], ids=["roomy", "tight"]
)
def test_vllms_own_priority_scheduling_is_kept_too_when_not_acting(machine, load):
    """Before, our ceiling, resuming first and the order of begun prefills were added to it."""
    plain = simulate(machine, load, stock=True)
    stock = simulate(machine, load, stock=True, by_priority=True)
    hooked = simulate(machine, load, by_priority=True)
    assert stock.steps != plain.steps, "the setting matters here"
    assert hooked.steps == stock.steps
    assert (stock.preemptions > 20) == (machine is TIGHT), "the case is worth its name"
    assert hooked.engine.snapshot().policy == "priority"
    limits = hooked.engine.snapshot().limits
    assert hooked.engine.apply(decision(1, "priority", ttl_s=9.0, limits=limits)).accepted
    assert not hooked.engine.scheduler.queue.policy.is_stock, "a controller's has the guarantees"


@pytest.mark.parametrize(
    "configured", [{"max_num_active_seqs": 6}, {"long_prefill_token_threshold": 48}], ids=str
)
def test_what_the_operator_configured_is_respected_when_not_acting(configured, monkeypatch):
    if not hasattr(SchedulerConfig, *configured):
        pytest.skip("up to vLLM 0.30 there is no such setting")
    config = functools.partial(SchedulerConfig, **configured)
    load = CALM[:300]
    plain = simulate(ROOMY, load, stock=True)
    monkeypatch.setattr(virtual_vllm, "SchedulerConfig", config)
    stock, hooked = simulate(ROOMY, load, stock=True), simulate(ROOMY, load)
    assert stock.steps != plain.steps, "the setting matters here"
    assert hooked.steps == stock.steps
    limits = hooked.engine.snapshot().limits
    assert limits.max_active_requests == configured.get("max_num_active_seqs", 64)
    assert limits.long_prefill_threshold == configured.get("long_prefill_token_threshold", 0)


def test_the_schedule_is_stocks_again_after_the_controller_has_gone():
    """A first batch is served under another rule; what comes after the lease is not."""
    busy, later = CALM[:100], CALM[100:300]
    gap_s = 60.0
    shifted = [*busy, *(moved(r, gap_s) for r in later)]

    def decide(engine: SimulatedEngine) -> None:
        changed = Limits(32, 256, 64, prefill_share=0.2, follow_slack=True)
        assert engine.apply(decision(1, "sjf", ttl_s=30.0, limits=changed)).accepted

    acting, stock = simulate(ROOMY, shifted, before=decide), simulate(ROOMY, shifted, stock=True)
    assert acting.outcomes[:100] != stock.outcomes[:100]
    late = {f"r{i}" for i in range(100, 300)}
    assert [s for s in acting.steps if late & {r for r, _ in s[0]}] == [
        s for s in stock.steps if late & {r for r, _ in s[0]}
    ]


def moved(request: TraceRequest, by_s: float) -> TraceRequest:
    return TraceRequest(
        request.arrival_s + by_s, request.prompt_tokens, request.output_tokens, request.tenant,
        request.slo_class, request.priority,
    )  # fmt: skip


def test_every_request_has_one_outcome_and_the_journal_agrees_with_it(tight):
    arrivals, outcomes = journal_of(tight.engine)
    names = [f"r{i}" for i in range(len(LONG_ANSWERS))]
    assert [o.request_id for o in tight.outcomes] == names
    assert sorted(a.request_id for a in arrivals) == sorted(names)
    assert sorted(o.request_id for o in outcomes) == sorted(names)
    inside = {o.request_id: o for o in outcomes}
    for seen, offered in zip(tight.outcomes, LONG_ANSWERS, strict=True):
        noted = inside[seen.request_id]
        assert seen.finish == noted.finish == "stop"
        assert noted.output_tokens == seen.output_tokens == offered.output_tokens
        assert (noted.met, noted.miss) == (seen.met, seen.miss)
        assert (noted.queue_s, noted.ttft_s, noted.tpot_s, noted.e2e_s) == (
            seen.queue_s, seen.ttft_s, seen.tpot_s, seen.e2e_s,
        )  # fmt: skip
        assert (noted.tenant, noted.slo_class) == (offered.tenant, offered.slo_class)
        assert (noted.policy, noted.epoch) == (seen.policy, seen.epoch) == ("fcfs", 0)
    assert sum(o.preemptions for o in outcomes) == tight.engine.snapshot().kv.preemptions


def test_the_totals_per_tenant_and_class_are_those_of_the_outcomes(tight):
    rows = tight.engine.snapshot().counters
    for row in rows:
        mine = [o for o in tight.outcomes if (o.tenant, o.slo_class) == (row.tenant, row.slo_class)]
        assert row.received == row.finished == len(mine)
        assert (row.aborted, row.met) == (0, sum(o.met for o in mine))
        assert row.output_tokens == sum(o.output_tokens for o in mine)
    assert sum(row.received for row in rows) == len(LONG_ANSWERS)


def test_requests_that_clients_abort_are_closed_and_counted():
    engine = SimulatedEngine(TIGHT, SETTINGS)
    engine.run(LONG_ANSWERS, until_s=5.0)
    received = sum(row.received for row in engine.snapshot().counters)
    queue, batch = engine.snapshot().queue, engine.snapshot().batch
    assert queue.waiting > 0
    assert batch.running > 0
    engine.scheduler.finish_requests(None, RequestStatus.FINISHED_ABORTED)
    after = engine.snapshot()
    assert (after.queue.waiting, after.batch.running, len(engine.scheduler.requests)) == (0, 0, 0)
    assert sum(row.aborted for row in after.counters) == queue.waiting + batch.running
    assert sum(row.finished + row.aborted for row in after.counters) == received
    _, outcomes = journal_of(engine)
    aborted = [o for o in outcomes if o.finish == "aborted"]
    assert all(o.output_tokens for o in aborted if o.met), "by what was due so far"
    assert any(o.met for o in aborted)
    assert sum(row.withdrawn for row in after.counters) == sum(o.withdrawn for o in aborted) > 0
    assert len(outcomes) == received


def test_two_runs_give_the_same_outcomes():
    def tickers(engine: SimulatedEngine) -> list[Ticker]:
        names = ["slide", "edf", "sjf", "laxity"]

        def decide() -> None:
            epoch = engine.snapshot().epoch + 1
            assert engine.apply(decision(epoch, names[epoch % 4], ttl_s=9.0)).accepted

        return [(0.7, decide)]

    once, again = (simulate(TIGHT, LONG_ANSWERS[:200], tickers=tickers) for _ in range(2))
    assert once.outcomes == again.outcomes
    assert once.steps == again.steps
    assert once.engine.snapshot() == again.engine.snapshot()
    assert len({o.epoch for o in once.outcomes}) > 3


@pytest.mark.parametrize("period_s", [0.1, 0.3, 0.7])
def test_ticks_come_once_per_period_also_while_idle(period_s):
    times: list[float] = []
    engine = SimulatedEngine(ROOMY, SETTINGS)

    def tick() -> None:
        times.append(engine.now())
        assert len(times) < 100, "virtual time stands still"

    engine.run([TraceRequest(0.0, 10, 2), TraceRequest(7.0, 10, 2)], [(period_s, tick)])
    assert len(times) == int(7.0 / period_s + 1e-9)
    gaps_s = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert gaps_s == pytest.approx([period_s] * len(gaps_s), abs=0.02)


@pytest.mark.parametrize("stock", [True, False], ids=["stock", "hook"])
@pytest.mark.parametrize(
    ("machine", "load"),
    [
        (ROOMY, CALM[:1000]),
        (TIGHT, LONG_ANSWERS),
        (replace(TIGHT, prefix_caching=True), sessions(200, 12.0, 4, 160.0)),
    ],
    ids=["roomy", "tight", "tight, prefix caching"],
)
def test_what_is_skipped_for_speed_changes_no_step(machine, load, stock, monkeypatch):
    def decide(engine: SimulatedEngine) -> None:
        if not stock:
            limits = with_rules(stock_limits(machine), RULES)
            assert engine.apply(decision(1, "slide", ttl_s=9e3, limits=limits)).accepted

    quick = simulate(machine, load, stock=stock, before=decide)
    for shortcut in ("skip_idle_allocations", "skip_model_input"):
        monkeypatch.setattr(simulated, shortcut, lambda scheduler: None)
    plain = simulate(machine, load, stock=stock, before=decide)
    assert quick.outcomes == plain.outcomes
    assert quick.steps == plain.steps
    assert (quick.preemptions > 20) == (machine is not ROOMY), "the case is worth its name"
    assert quick.engine.recomputed_tokens == plain.engine.recomputed_tokens
    if not stock:
        assert quick.engine.snapshot() == plain.engine.snapshot()


def test_a_running_request_holds_blocks_for_all_that_it_has_computed():
    """What `skip_idle_allocations` rests on, checked after each step."""
    engine = SimulatedEngine(TIGHT, SETTINGS)
    blocks = engine.scheduler.kv_cache_manager.coordinator.single_type_managers[0].req_to_blocks

    def check(_: object) -> None:
        for request in engine.scheduler.running:
            needed = -(-request.num_computed_tokens // TIGHT.block_size)
            assert len(blocks[request.request_id]) == needed

    engine.run(LONG_ANSWERS, on_step=check)
    assert engine.recomputed_tokens > 0
    assert engine.scheduler.kv_cache_manager.block_pool.get_num_free_blocks() == 899
