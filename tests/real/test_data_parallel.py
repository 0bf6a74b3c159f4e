"""Do two data-parallel engine cores of a real vLLM follow one controller?

A server of its own, which this module starts and stops: two ranks, each with its own
hook, behind two API servers (vLLM's default) that each spread requests over both.
"""

import socket
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest

from serving.contracts import Arrival, Outcome
from serving.contracts.settings import EngineSettings
from serving.engines.live import LiveEngine
from serving.engines.ranks import in_step
from serving.launch.launcher import running_server
from serving.launch.model import SMOLLM2, is_complete
from tests.real.conftest import MODEL, SETTINGS, TOKEN, RealServer
from tests.real.test_real_engine import decision, send, traffic, wait_for

pytestmark = pytest.mark.real_vllm

RANKS = 2
SENT = 24
TENANTS = ("dp-a", "dp-b")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    assert is_complete(SMOLLM2), f"no model in {SMOLLM2}: run `make model`"
    folder = tmp_path_factory.mktemp("vllm-ranks")
    token_file, log = folder / "token", folder / "vllm.log"
    token_file.write_text(TOKEN + "\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = [
        "--served-model-name", MODEL, "--max-model-len", "1024",
        "--max-num-seqs", "8", "--enforce-eager",
        "--data-parallel-size", str(RANKS),
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        # vLLM's CPU build binds each rank to cores of its own, and there may be too few.
        patch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        settings = EngineSettings(slo_scale=SETTINGS.slo_scale, contract=SETTINGS.contract)
        model = str(SMOLLM2)
        with running_server(settings, model, arguments, port=port, token=TOKEN, log=log):
            yield RealServer(f"http://127.0.0.1:{port}", token_file, log)


@pytest.fixture(scope="module")
def engine(server: RealServer) -> Iterator[LiveEngine]:
    engine = server.engine()
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def served(server: RealServer, engine: LiveEngine) -> list[Outcome]:
    """What the clients saw of SENT requests, all of them under one decision."""
    assert engine.apply(decision(engine.snapshot(), policy="slide", ttl_s=600.0)).accepted
    return send(server, traffic(SENT, TENANTS), "ranks-")


def test_each_core_knows_its_rank_and_both_are_asked(engine: LiveEngine) -> None:
    shot = engine.snapshot()
    assert [rank.rank for rank in shot.ranks] == [0, 1]
    assert shot.kv.total_blocks == sum(rank.envelope.kv_blocks for rank in shot.ranks)
    assert shot.envelope.max_active_requests == 8, "limits are per rank"


def test_a_decision_is_in_force_on_both_ranks(engine: LiveEngine) -> None:
    start = engine.snapshot()
    ack = engine.apply(decision(start, policy="edf"))
    assert ack.accepted
    after = engine.snapshot()
    assert [(r.policy, r.epoch, r.controller_id) for r in after.ranks] == [
        ("edf", start.epoch + 1, "test")
    ] * RANKS
    assert in_step(after)
    assert engine.release("test").accepted
    assert [rank.policy for rank in engine.snapshot().ranks] == ["fcfs"] * RANKS


def test_requests_reach_both_ranks_and_the_counters_add_up(
    served: list[Outcome], engine: LiveEngine
) -> None:
    assert [outcome.finish for outcome in served] == ["length"] * SENT
    shot = engine.snapshot()
    per_rank = [
        sum(c.finished for c in rank.counters if c.tenant in TENANTS) for rank in shot.ranks
    ]
    assert min(per_rank) > 0
    assert sum(per_rank) == SENT
    by_tenant: Counter[str] = Counter()
    for row in shot.counters:
        by_tenant[row.tenant] += row.received
        assert row.received == row.finished + row.aborted
    assert [by_tenant[tenant] for tenant in TENANTS] == [SENT / 2, SENT / 2]
    assert sum(rank.batch.steps for rank in shot.ranks) == shot.batch.steps
    assert shot.policy_errors == 0, shot.last_error


def test_the_journal_has_every_event_of_both_ranks_once(
    served: list[Outcome], engine: LiveEngine
) -> None:
    events: list[Arrival | Outcome] = []
    cursor, head = 0, engine.snapshot().journal_head
    while cursor != head:
        page = engine.journal(cursor, limit=7)
        assert 0 < len(page.arrivals) + len(page.outcomes) <= 7
        assert page.lost == 0
        events += [*page.arrivals, *page.outcomes]
        cursor = page.cursor
    ours = [event for event in events if event.tenant in TENANTS]
    seen = Counter((type(event), event.request_id) for event in ours)
    assert len(seen) == len(ours) == 2 * SENT
    served_by = {(e.epoch, e.policy) for e in ours if isinstance(e, Outcome)}
    assert served_by == {(engine.snapshot().epoch, "slide")}


def test_metrics_sum_tenants_over_ranks_and_label_the_rest(
    served: list[Outcome], server: RealServer
) -> None:
    def lines() -> list[str]:
        return httpx.get(f"{server.url}/metrics", follow_redirects=True).text.splitlines()

    def finished() -> float:
        ours = (line for line in lines() if line.startswith("hmas_requests_finished_total{"))
        return sum(float(line.rsplit(" ", 1)[1]) for line in ours if 'tenant="dp-' in line)

    wait_for(lambda: finished() == SENT, 10)
    for family in ("hmas_epoch", "hmas_rule_total", "hmas_waiting_requests"):
        for rank in range(RANKS):
            assert any(n.startswith(family) and f'rank="{rank}"' in n for n in lines()), family


def test_both_ranks_return_to_their_default_when_the_lease_ends(
    served: list[Outcome], engine: LiveEngine
) -> None:
    start = engine.snapshot()
    assert engine.apply(decision(start, policy="edf", ttl_s=12.0)).accepted
    assert engine.renew("test", 6.0).accepted
    assert engine.snapshot().policy == "edf"
    wait_for(lambda: not any(r.controller_id for r in engine.snapshot().ranks), 20)
    assert [(r.policy, r.limits) for r in engine.snapshot().ranks] == [
        ("fcfs", r.limits) for r in start.ranks
    ]
    assert engine.apply(decision(engine.snapshot(), policy="edf")).accepted, "and can be retaken"
    assert engine.release("test").accepted
