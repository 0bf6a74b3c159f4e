"""Does the observer take in every step and token, in whatever order vLLM reports them?"""

import pytest
from vllm.sampling_params import SamplingParams
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus

from serving.contracts import Outcome
from serving.contracts.settings import EngineSettings
from serving.engines.virtual_vllm import build_scheduler
from serving.scheduler import HMASScheduler
from tests.serving.driven_scheduler import machine
from tests.serving.samples import profile
from tests.serving.shaped_scheduler import Shaped


class Clock:
    """The engine's clock, moved by the test."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def scheduler(clock) -> HMASScheduler:
    built: HMASScheduler = build_scheduler(HMASScheduler, profile(), EngineSettings())
    built.clock = clock
    return built


def submit(scheduler: HMASScheduler, name: str, max_tokens: int, **extra: object) -> None:
    params = SamplingParams(max_tokens=max_tokens, extra_args=extra or None)
    request = Request(
        request_id=name, prompt_token_ids=[7] * 10, sampling_params=params,
        pooling_params=None, arrival_time=scheduler.clock(),
    )  # fmt: skip
    scheduler.add_request(request)


def complete(scheduler: HMASScheduler, output: SchedulerOutput) -> None:
    """One token for every request of the step."""
    names = list(output.num_scheduled_tokens)
    result = ModelRunnerOutput(
        req_ids=names, req_id_to_index={name: i for i, name in enumerate(names)},
        sampled_token_ids=[[7] for _ in names],
    )  # fmt: skip
    scheduler.update_from_output(output, result)


def outcomes(scheduler: HMASScheduler) -> dict[str, Outcome]:
    return {o.request_id: o for o in scheduler.hmas_journal(0, 999).outcomes}


def test_an_error_of_one_request_does_not_cost_another_its_last_token(scheduler, clock):
    """vLLM ends faulty requests inside the step in which others give their last token."""
    submit(scheduler, "short", 1, slo_ttft_ms=900)
    submit(scheduler, "faulty", 9)
    output = scheduler.schedule()
    errors = scheduler.grammar_compile_error_reqs
    if isinstance(errors, dict):  # vLLM 0.33
        from vllm.outputs import RequestError

        errors["faulty"] = RequestError(code="validation_error", message="faulty")
    else:
        errors.add("faulty")
    clock.now_s += 0.5
    complete(scheduler, output)
    left = outcomes(scheduler)
    assert (left["short"].finish, left["short"].output_tokens) == ("length", 1)
    assert (left["short"].ttft_s, left["short"].met) == (0.5, True)
    assert (left["faulty"].finish, left["faulty"].met) == ("error", False)
    assert not scheduler.observer.accounting.tracks


def test_steps_are_measured_with_empty_ones_between_them(scheduler, clock):
    """Async scheduling runs ahead: a step with nothing to do may be queued between two others."""
    submit(scheduler, "a", 1)
    first = scheduler.schedule()
    empty = scheduler.schedule()
    submit(scheduler, "b", 1)
    third = scheduler.schedule()
    assert [list(o.num_scheduled_tokens) for o in (first, empty, third)] == [["a"], [], ["b"]]
    for output in (first, empty, third):
        clock.now_s += 0.25
        complete(scheduler, output)
    batch = scheduler.hmas_snapshot().batch
    assert (batch.steps, batch.last_step_s) == (2, 0.25)


def test_a_step_that_runs_behind_another_is_timed_from_its_end(scheduler, clock):
    submit(scheduler, "a", 5)
    first = scheduler.schedule()
    second = scheduler.schedule()  # both handed over at once
    for output, step_s in ((first, 0.3), (second, 0.2)):
        clock.now_s += step_s
        complete(scheduler, output)
        assert scheduler.hmas_snapshot().batch.last_step_s == pytest.approx(step_s)


def test_a_request_aborted_while_its_step_is_in_flight_is_closed_once(scheduler, clock):
    submit(scheduler, "a", 5, tenant="acme", slo_class="interactive")
    output = scheduler.schedule()
    scheduler.finish_requests("a", RequestStatus.FINISHED_ABORTED)
    complete(scheduler, output)
    assert outcomes(scheduler)["a"].finish == "aborted"
    (row,) = scheduler.hmas_snapshot().counters
    assert (row.tenant, row.slo_class) == ("acme", "interactive")
    assert (row.received, row.finished, row.aborted) == (1, 0, 1)


def test_the_same_id_twice_is_counted_as_often_as_vllm_serves_it(scheduler):
    for _ in range(2):
        submit(scheduler, "a", 1)
        complete(scheduler, scheduler.schedule())
    (row,) = scheduler.hmas_snapshot().counters
    assert (row.received, row.finished) == (2, 2)


def gaps(scheduler: HMASScheduler) -> dict[str, tuple[int, object]]:
    """Per SLO class, how many inter-token gaps were counted, and their sum."""
    told = scheduler.hmas_totals().histograms
    mine = [each for each in told if each.measure == "inter_token_seconds"]
    return {each.slo_class: (sum(each.counts), pytest.approx(each.total)) for each in mine}


def test_every_gap_between_two_tokens_is_counted_and_no_first_token(scheduler, clock):
    submit(scheduler, "a", 3, slo_class="interactive")
    submit(scheduler, "b", 1, slo_class="batch")
    for step_s in (0.5, 0.25, 2.0):
        output = scheduler.schedule()
        clock.now_s += step_s
        complete(scheduler, output)
    assert gaps(scheduler) == {"interactive": (2, 2.25)}


def test_a_gap_lasts_until_a_preempted_request_is_back(scheduler, clock):
    submit(scheduler, "a", 4, slo_class="interactive")
    for _ in range(2):
        output = scheduler.schedule()
        clock.now_s += 0.5
        complete(scheduler, output)
    assert gaps(scheduler) == {"interactive": (1, 0.5)}
    scheduler.reset_prefix_cache(reset_running_requests=True)
    clock.now_s += 7.0
    for _ in range(2):
        output = scheduler.schedule()
        clock.now_s += 0.5
        complete(scheduler, output)
    assert gaps(scheduler) == {"interactive": (3, 0.5 + 7.5 + 0.5)}


def with_a_first_token_in_flight_at_preemption() -> Shaped:
    """vLLM schedules a step ahead and takes b's blocks before its first token is delivered."""
    engine = Shaped(profile=machine(kv_blocks=5, max_active=4, token_budget=32), ahead=1)
    engine.decide("edf")
    engine.add("a", 7, 6, slo_class="batch")
    engine.step()
    engine.add("b", 8, 3, slo_ttft_ms=50, slo_tpot_ms=500)
    engine.step(2)
    assert (engine.scheduler.observer.preemptions, engine.got["b"]) == (1, 1)
    return engine


def test_a_first_token_that_comes_after_a_preemption_is_noted_when_it_comes():
    engine = with_a_first_token_in_flight_at_preemption()
    engine.drain()
    outcome = engine.outcomes()["b"]
    assert outcome.ttft_s == pytest.approx(0.04)
    assert outcome.met
    told = engine.scheduler.hmas_totals().histograms
    mine = {h.slo_class: sum(h.counts) for h in told if h.measure == "inter_token_seconds"}
    assert mine == {"batch": 5, "custom": 2}
    engine.check_books()


def test_a_request_whose_first_token_was_in_flight_at_its_preemption_resumes_first():
    engine = with_a_first_token_in_flight_at_preemption()
    assert engine.fact("b", "whole_prompt_tokens") == 8
    assert engine.fact("b", "resumed")
    engine.add("urgent", 8, 3, slo_ttft_ms=1)
    engine.drain()
    served = [name for step in engine.steps for name in (*step[1], *step[2])]
    assert served == ["a", "b", "b", "urgent"]
    engine.check_books()
