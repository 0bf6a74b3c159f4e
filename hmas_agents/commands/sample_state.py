"""What does a hard minute look like? The situation that `hmas prompts` renders with."""

from hmas_agents.states import LongState

SAMPLE_STATE = LongState(
    now_s=1_000.0,
    window_s=120.0,
    policy="edf",
    epoch=7,
    arrivals=2_040,
    rate_rps=17.0,
    rate_trend=0.15,
    load=1.3,
    dispersion={"1s": 1.4, "10s": 3.2, "60s": 7.5},
    prompt_p50=1_020.0,
    prompt_p90=2_734.0,
    output_p50=129.0,
    output_p90=424.0,
    psi_lengths=0.31,
    psi_mix=0.05,
    alarms=("rate_up", "lengths"),
    goodput_rps=9.1,
    attainment=0.54,
    attainment_by_class={"conversational": 0.71, "document": 0.93, "interactive": 0.32},
    attainment_by_tenant={"acme": 0.32, "globex": 0.71, "initech": 0.93},
    misses={"tpot": 0.06, "ttft_execution": 0.08, "ttft_queue": 0.32},
    length_coverage=0.91,
    e2e_p95_s=14.2,
    waiting=120,
    queued_prefill_s=4.7,
)
