"""States to test agents with: a quiet engine, and what differs from it."""

from dataclasses import replace
from typing import Any

from hmas_agents.states import LongState, ShortState
from serving.contracts import Limits

QUIET = ShortState(
    now_s=100.0, epoch=3, policy="slide", limits=Limits(64, 2048, follow_slack=True),
    max_token_budget=2048, max_active_requests=64, waiting=0, running=4, decoding=4,
    prefilling=0, queued_prefill_s=0.0, oldest_wait_s=0.0, min_laxity_s=None,
    p10_laxity_s=None, hopeless_share=0.0, decode_slack_p10_s=0.02, step_time_bias=0.0,
    kv_used=0.2, kv_predicted_peak=0.3, preemptions_per_s=0.0,
    tpot_miss_share=0.0, ttft_miss_share=0.0,
)  # fmt: skip

CALM = LongState(
    now_s=1000.0, window_s=120.0, policy="slide", epoch=3, arrivals=500, rate_rps=4.0,
    rate_trend=0.0, load=0.5, dispersion={"1s": 1.0}, prompt_p50=900.0, prompt_p90=2500.0,
    output_p50=130.0, output_p90=400.0, psi_lengths=0.0, psi_mix=0.0, alarms=(),
    goodput_rps=4.0, attainment=0.99, attainment_by_class={"interactive": 0.99},
    attainment_by_tenant={"acme": 0.99}, misses={}, length_coverage=0.9, e2e_p95_s=5.0,
    waiting=0, queued_prefill_s=0.0,
)  # fmt: skip


def short_state(**differs: Any) -> ShortState:
    """Few requests, none late, nothing waiting, except as said."""
    return replace(QUIET, **differs)


def long_state(**differs: Any) -> LongState:
    """Half loaded, smooth, nearly all met, except as said."""
    return replace(CALM, **differs)
