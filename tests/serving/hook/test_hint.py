"""Does the hint to routers hold all that the scheduler has to prefill, by when it is due?"""

import pytest

from serving.contracts.state import WITHIN_S
from tests.serving.samples import decision, mixed_load, profile
from tests.serving.simulation import simulate


def test_all_that_waits_and_all_prompts_that_have_begun_are_owed():
    found = []

    def tickers(engine):
        hook = engine.scheduler

        def look():
            hint, now_s = hook.hmas_totals().hint, hook.hmas_snapshot().now_s
            left = [
                (one, one.prompt_tokens - one.computed_tokens)
                for one in hook.hmas_inside(10_000).requests
                if not one.output_tokens
            ]
            urgent = [
                tokens for one, tokens in left
                if one.running or one.slo.ttft_ms / 1000 + one.arrival_s - now_s <= 2.0
            ]  # fmt: skip
            found.append((hint, sum(tokens for _, tokens in left), sum(urgent)))

        hook.hmas_apply(decision(1, "fcfs", ttl_s=1e6))
        return [(0.5, look)]

    load = mixed_load(300, 60.0, seed=4, classes=("interactive", "document"))
    simulate(profile(token_budget=256), load, tickers=tickers)
    assert found[-1][0].learned
    for hint, tokens, urgent in found:
        due_tokens = [due_s / hint.prefill_s_per_token for due_s in hint.prefill_due_s]
        assert due_tokens == sorted(due_tokens)
        assert due_tokens[-1] == pytest.approx(tokens, abs=1)
        assert due_tokens[WITHIN_S.index(2.0)] == pytest.approx(urgent, abs=1)
    assert sum(tokens > 1000 for _, tokens, _ in found) > 3
    assert any(0 < urgent < tokens for _, tokens, urgent in found)
