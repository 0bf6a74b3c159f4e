"""Does the SGLang emulation schedule small cases as one works them out by hand?"""

import pytest

from evals.arms.sglang.scheduler import (
    INITIAL_RATIO,
    LEAST_RATIO,
    RATIO_DECAY,
    EmulatedScheduler,
    PrefillBudget,
    ServedRequest,
)


def scheduler(kv=1000, running=10, chunk=100, waiting=()):
    made = EmulatedScheduler(kv, running, chunk)
    made.waiting.extend(waiting)
    return made


def request(index, prompt, answer=5, allowed=20, output=0):
    return ServedRequest(index, prompt, answer, allowed, output)


def decoding(engine, *requests):
    """Put requests with output into the running batch, their tokens into the KV cache."""
    for each in requests:
        engine.running.join(each)
        engine.free_tokens -= engine.running.kv_tokens(each)


def one_step(engine):
    """What the next step prefills, as (index, tokens), or who decodes."""
    step = engine.schedule()
    if step is None:
        return None
    decoded = [] if step.prefills else [each.index for each in engine.running]
    engine.complete(step)
    return [(p.request.index, p.tokens) for p in step.prefills] or decoded


def indices(requests):
    return [each.index for each in requests]


# -- admission ----------------------------------------------------------------------


def test_admission_is_in_order_and_stops_at_the_first_that_does_not_fit():
    small = request(2, 5, allowed=5)
    engine = scheduler(kv=100, waiting=[request(0, 40), request(1, 60), small])
    # 40 + 20 + 1 < 100, which leaves 39; request 1 needs 81, and 2, which needs 11, is behind it.
    assert one_step(engine) == [(0, 40)]
    assert indices(engine.waiting) == [1, 2]
    assert engine.batch_is_full


@pytest.mark.parametrize(("kv", "admitted"), [(62, True), (61, False)])
def test_what_fits_is_uncached_and_output_and_a_page_below_the_rest(kv, admitted):
    engine = scheduler(kv=kv, waiting=[request(0, 40)])
    assert (one_step(engine) == [(0, 40)]) is admitted
    assert not engine.batch_is_full  # nobody is there who could leave


def test_running_requests_keep_the_expected_share_of_their_output():
    engine = scheduler(kv=150)
    decoding(engine, request(0, 50, output=1, answer=50, allowed=101))
    # 150 - 50 - 100 * 0.7 = 30: 8 + 20 + 1 is below it, 9 + 20 + 1 is not.
    engine.waiting.append(request(1, 9))
    assert one_step(engine) == [0]
    assert engine.batch_is_full
    engine = scheduler(kv=150)
    decoding(engine, request(0, 50, output=1, answer=50, allowed=101))
    engine.waiting.append(request(1, 8))
    assert one_step(engine) == [(1, 8)]


def test_no_more_than_4096_tokens_of_output_are_reserved():
    engine = scheduler(kv=10_000)
    decoding(engine, request(0, 10, output=1, allowed=9_000))
    assert engine.running.reserved_tokens() == 4096
    budget = PrefillBudget(4_107.5, 100, 100)
    assert budget.fits(request(1, 10, allowed=9_000))
    assert not budget.fits(request(1, 11, allowed=9_000))


def test_nobody_is_admitted_beyond_the_most_running_requests():
    engine = scheduler(running=2, waiting=[request(i, 10, answer=3) for i in range(3)])
    assert [one_step(engine) for _ in range(4)] == [[(0, 10), (1, 10)], [0, 1], [0, 1], [(2, 10)]]


def test_a_full_batch_admits_nobody_until_somebody_leaves():
    engine = scheduler(waiting=[request(1, 10)])
    decoding(engine, request(0, 10, output=1, answer=3))
    engine.batch_is_full = True
    assert [one_step(engine) for _ in range(3)] == [[0], [0], [(1, 10)]]


# -- prefill steps ------------------------------------------------------------------


def test_a_prefill_step_stalls_every_decode():
    engine = scheduler()
    decoding(engine, request(0, 10, output=1))
    assert one_step(engine) == [0]
    engine.waiting.append(request(1, 10))
    running = next(iter(engine.running))
    assert one_step(engine) == [(1, 10)]
    assert engine.running.output_tokens(running) == 2
    assert one_step(engine) == [0, 1]
    assert engine.running.output_tokens(running) == 3


def test_one_request_is_chunked_at_a_time_and_goes_on_first():
    engine = scheduler(waiting=[request(0, 250), request(1, 30), request(2, 130), request(3, 1)])
    assert one_step(engine) == [(0, 100)]
    assert engine.chunked is not None
    assert one_step(engine) == [(0, 100)]
    assert one_step(engine) == [(0, 50), (1, 30), (2, 20)]
    assert engine.chunked.index == 2
    assert one_step(engine) == [(2, 100)]
    assert one_step(engine) == [(2, 10), (3, 1)]
    assert engine.chunked is None
    assert one_step(engine) == [0, 1, 2, 3]


def test_a_chunk_has_no_token_and_no_reserved_output_before_the_last():
    budget = PrefillBudget(1_000.0, 100, 16_384)
    long = request(0, 150)
    first = budget.take(long)
    assert (first.tokens, first.last, budget.kv, budget.chunk) == (100, False, 899, 0)
    long.prefilled_tokens, budget.chunk = 100, 100
    second = budget.take(long)
    assert (second.tokens, second.before, second.last) == (50, 100, True)
    assert (budget.kv, budget.chunk, budget.prompt) == (899 - 50 - 1 - 20, 50, 16_384 - 150)

    engine = scheduler(waiting=[long := request(0, 150)])
    one_step(engine)
    assert long.output_tokens == 0
    one_step(engine)
    assert long.output_tokens == 1


def test_the_input_budget_ends_a_step_as_well():
    engine = scheduler(kv=100_000, chunk=50_000, waiting=[request(i, 9_000) for i in range(3)])
    assert one_step(engine) == [(0, 9_000), (1, 9_000)]
    assert not engine.batch_is_full


# -- retraction ---------------------------------------------------------------------


def test_retraction_takes_the_fewest_output_tokens_and_of_these_the_longest_prompt():
    engine = scheduler(kv=100, waiting=[request(9, 90)])
    decoding(
        engine, request(0, 30, 50, 50, output=10), request(1, 20, 50, 50, output=5),
        request(2, 30, 50, 50, output=5),
    )  # fmt: skip
    assert engine.free_tokens == 3
    assert one_step(engine) == [0, 1, 2]  # which takes the last three
    step = engine.schedule()
    assert step is not None
    assert indices(step.retracted) == [2]
    assert indices(engine.waiting) == [9, 2]  # the tail
    assert indices(engine.running) == [0, 1]
    assert step.shape.decodes == 2
    assert step.shape.decode_context == 40 + 25
    assert engine.free_tokens == 100 - 40 - 25 - 2
    assert engine.ratio == (11 + 6 + 20 * 2) / (50 + 50 + 1)


def test_of_equals_the_latest_is_retracted_and_as_many_as_it_takes():
    engine = scheduler(kv=4)
    decoding(engine, *(request(i, 1, 50, 50, output=1) for i in range(4)))  # a token each
    step = engine.schedule()
    assert step is not None
    assert indices(step.retracted) == [3, 2]
    assert indices(engine.running) == [0, 1]


def test_a_retracted_request_is_prefilled_with_its_output_and_goes_on_from_there():
    engine = scheduler(kv=39 + 24)
    decoding(engine, request(0, 30, 12, 20, output=10), request(1, 20, 8, 20, output=5))
    step = engine.schedule()
    assert step is not None
    assert indices(step.retracted) == [1]
    engine.complete(step)
    back = engine.waiting[0]
    assert (back.output_tokens, back.uncached_tokens) == (5, 25)
    assert one_step(engine) == [0]  # its last token
    assert one_step(engine) == [(1, 25)]
    assert back.output_tokens == 6
    assert [one_step(engine) for _ in range(3)] == [[1], [1], None]
    assert back.output_tokens == 8
    assert engine.free_tokens == 63


# -- new_token_ratio ----------------------------------------------------------------


def test_the_ratio_falls_with_decodes_only_and_resets_when_idle():
    engine = scheduler(kv=10_000, waiting=[request(0, 10, answer=4), request(1, 10, answer=802)])
    one_step(engine)
    assert engine.ratio == INITIAL_RATIO == 0.7
    one_step(engine)
    assert engine.ratio == pytest.approx(0.7 - (0.7 - 0.098) / 600)
    assert pytest.approx((0.7 - 0.098) / 600) == RATIO_DECAY
    for _ in range(599):
        one_step(engine)
    assert engine.ratio == pytest.approx(LEAST_RATIO)
    one_step(engine)
    assert engine.ratio == LEAST_RATIO == 0.098
    for _ in range(200):
        assert one_step(engine) == [1]
    assert one_step(engine) is None
    assert engine.ratio == INITIAL_RATIO
    assert engine.free_tokens == 10_000
