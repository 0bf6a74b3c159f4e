"""Is a vLLM that the hook does not know refused at start-up, and the known ones bridged?"""

import asyncio
import logging
from dataclasses import replace
from types import SimpleNamespace

import pytest
import vllm
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.request_queue import RequestQueue
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import Request

from serving import compat
from serving.contracts import Outcome
from serving.contracts.settings import EngineSettings
from serving.engines.simulated import SimulatedEngine
from serving.engines.virtual_vllm import build_scheduler
from serving.scheduler import HMASScheduler
from tests.compat_matrix import RELEASES
from tests.serving.samples import mixed_load, profile
from tests.serving.simulation import journal_of, simulate

MACHINE = profile(900)
WORKS = "The hook works with vLLM >=0.26,<0.34 (tested: 0.26.0, "


@pytest.fixture
def stock():
    """vLLM's own scheduler, which a test may damage."""
    return build_scheduler(AsyncScheduler, MACHINE, EngineSettings())


def refusal(scheduler) -> str:
    """What `check` says when it refuses."""
    with pytest.raises(compat.UnsupportedVLLM) as refused:
        compat.check(scheduler)
    return str(refused.value)


def test_this_vllm_is_accepted_and_named(stock, monkeypatch):
    monkeypatch.delenv(compat.ALLOW_UNTESTED, raising=False)
    compat.check(stock)
    assert compat.vllm_version() == vllm.__version__


def test_the_matrix_runs_every_version_that_the_hook_calls_tested():
    assert tuple(release.partition("==")[2] for release in RELEASES) == compat.TESTED
    assert all(compat.is_known(version) for version in compat.TESTED)


@pytest.mark.parametrize(
    "path", ["requests", "max_num_scheduled_tokens", "kv_cache_config", "running", "waiting"]
)
def test_a_scheduler_without_an_attribute_is_refused_by_its_name(path, stock):
    delattr(stock, path)
    text = refusal(stock)
    assert f"Scheduler.{path}" in text
    assert WORKS in text
    assert vllm.__version__ in text


def test_an_attribute_of_a_part_is_named_with_its_path(stock):
    stock.kv_cache_manager.block_pool = SimpleNamespace()
    assert "Scheduler.kv_cache_manager.block_pool.get_num_free_blocks" in refusal(stock)


@pytest.mark.parametrize("name", ["_preempt_request", "_free_request", "schedule"])
def test_a_method_that_is_gone_is_named(name, stock, monkeypatch):
    monkeypatch.delattr(Scheduler, name)
    assert f"Scheduler.{name}" in refusal(stock)


def test_a_method_with_other_parameters_is_refused_and_both_are_shown(stock, monkeypatch):
    def other(self, outputs, scheduler_output):
        """An order of arguments that the hook does not know."""

    monkeypatch.setattr(Scheduler, "update_from_output", other)
    text = refusal(stock)
    assert "Scheduler.update_from_output(scheduler_output, model_runner_output), found" in text
    assert "(self, outputs, scheduler_output)" in text


def test_a_queue_method_that_the_hook_lacks_is_named(stock, monkeypatch):
    more = frozenset({*RequestQueue.__abstractmethods__, "reorder"})
    monkeypatch.setattr(RequestQueue, "__abstractmethods__", more)
    assert "RequestQueue without reorder" in refusal(stock)


def test_what_requests_and_outputs_have_is_checked_too(stock, monkeypatch):
    monkeypatch.delattr(Request, "num_output_tokens")
    assert "Request.num_output_tokens" in refusal(stock)
    monkeypatch.undo()
    left = {k: v for k, v in SchedulerOutput.__annotations__.items() if "scheduled_new" not in k}
    monkeypatch.setattr(SchedulerOutput, "__annotations__", left)
    assert "SchedulerOutput.scheduled_new_reqs" in refusal(stock)


def test_a_request_that_is_built_otherwise_is_refused(stock, monkeypatch):
    monkeypatch.setattr(Request, "__init__", lambda self, request_id: None)
    assert "Request(request_id, prompt_token_ids, sampling_params, pooling_params)" in refusal(
        stock
    )


@pytest.mark.parametrize("found", ["0.25.1", "0.34.0", "1.0.0", "0.33.1.dev7+gabc", "dev", ""])
def test_an_untested_version_is_refused_unless_the_operator_allows_it(
    found, stock, monkeypatch, caplog
):
    monkeypatch.setattr(compat, "vllm_version", lambda: found)
    monkeypatch.delenv(compat.ALLOW_UNTESTED, raising=False)
    text = refusal(stock)
    assert WORKS in text
    assert "HMAS_ALLOW_UNTESTED_VLLM=1" in text
    monkeypatch.setenv(compat.ALLOW_UNTESTED, "1")
    with caplog.at_level(logging.WARNING, logger="vllm.hmas"):
        compat.check(stock)
    assert [f"vLLM {found} is untested" in record.getMessage() for record in caplog.records] == [
        True
    ]


def test_no_permission_helps_where_something_is_missing(stock, monkeypatch):
    monkeypatch.setenv(compat.ALLOW_UNTESTED, "1")
    del stock.requests
    assert "Scheduler.requests" in refusal(stock)


@pytest.mark.parametrize("found", ["0.26.0", "0.29.3", "0.32.0+cpu", "0.33.0.post1"])
def test_releases_inside_the_range_are_known(found):
    assert compat.is_known(found)


def test_the_hook_itself_refuses_to_start(monkeypatch):
    monkeypatch.setattr(compat, "vllm_version", lambda: "0.34.0")
    monkeypatch.delenv(compat.ALLOW_UNTESTED, raising=False)
    with pytest.raises(compat.UnsupportedVLLM):
        build_scheduler(HMASScheduler, MACHINE, EngineSettings())


def test_a_lower_limit_never_falls_below_what_runs_where_vllm_asserts_it(stock):
    stock.running = [object()] * 5
    compat.set_max_active(stock, 2)
    assert stock.max_num_running_reqs >= 5, "a step ends with this assertion in every version"
    if not hasattr(stock, "max_num_active_reqs"):
        stock.running = [object()]
        compat.set_max_active(stock, 2)
    assert compat.max_active(stock) == 2


def test_a_bound_does_not_count_the_requests_that_a_step_will_not_find(stock):
    stock.running = [object()] * 5
    compat.set_max_active(stock, 2, hidden=2)
    bound = getattr(stock, "max_num_active_reqs", stock.max_num_running_reqs)
    assert bound <= 3, "the three that stay are enough: nobody is admitted"


def test_what_the_cache_holds_of_a_waiting_request_is_what_vllm_will_find():
    caching = replace(MACHINE, prefix_caching=True)
    scheduler = build_scheduler(AsyncScheduler, caching, EngineSettings())
    init_none_hash(sha256)
    first, second, other = (
        Request(
            name, [token] * 100, SamplingParams(max_tokens=5), None,
            block_hasher=get_request_block_hasher(MACHINE.block_size, sha256),
        )
        for name, token in (("first", 7), ("second", 7), ("other", 8))
    )  # fmt: skip
    assert compat.cached_tokens(scheduler, first) == 0
    scheduler.add_request(first)
    free_before = compat.free_blocks(scheduler)
    scheduler.schedule()
    assert free_before - compat.free_blocks(scheduler) == compat.used_blocks(scheduler) == 7
    assert compat.cached_tokens(scheduler, second) == 96
    assert scheduler.kv_cache_manager.get_computed_blocks(second)[1] == 96
    assert compat.cached_tokens(scheduler, other) == 0


def test_the_books_are_the_same_where_vllm_lists_resumed_requests_as_new_ones():
    """As it does for the model runner of its GPU builds."""

    def books(second_runner: bool) -> list[Outcome]:
        def prepare(engine: SimulatedEngine) -> None:
            engine.scheduler.use_v2_model_runner = second_runner

        load = mixed_load(120, 40.0, seed=2, mean_output_tokens=120.0)
        return journal_of(simulate(profile(600), load, before=prepare).engine)[1]

    apart = books(second_runner=False)
    assert sum(outcome.preemptions for outcome in apart) > 5, "the case is worth its name"
    assert books(second_runner=True) == apart


class _Client:
    """As much of vLLM 0.26's engine client as is called, with ranks that answer their number."""

    def __init__(self, ranks: int) -> None:
        self.core_engines = list(range(ranks))

    async def _call_utility_async(self, method, *args, engine):
        return (engine, method, *args)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_every_data_parallel_rank_is_asked_also_by_an_old_client(ranks):
    answers = asyncio.run(compat.call_every_core(_Client(ranks), "hmas_call", "snapshot"))
    assert answers == [(rank, "hmas_call", "snapshot") for rank in range(ranks)]


def test_a_client_that_can_ask_all_does_so_itself():
    async def everyone(*args):
        return [args, args]

    client = SimpleNamespace(call_utility_all_async=everyone)
    answers = asyncio.run(compat.call_every_core(client, "hmas_call", "x"))
    assert answers == [("hmas_call", "x")] * 2
