"""What may a minute look like? Situations for `hmas prompts` where none is recorded."""

from dataclasses import replace

from hmas_agents.states import LongState, OperatorChange, PastProposal

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
    weights={"acme": 3.0},
    class_weights={"batch": 0.3},
    floors={"initech": 0.2},
    told=(OperatorChange("expect", 2.0, 1_600.0, 5_200.0, "globex"),),
    proposed=(
        PastProposal(940.0, "edf", {"kappa": 30.0}, "adopted", 0.04, 0.031),
        PastProposal(880.0, "srpt", {}, "gained too little", -0.002),
    ),
)

# Overload; calm; nothing known yet; and everything wrong at once, with as many groups as may be.
SAMPLE_STATES = (
    SAMPLE_STATE,
    replace(
        SAMPLE_STATE, rate_rps=4.0, arrivals=480, load=0.5, dispersion={"1s": 1.0}, alarms=(),
        goodput_rps=4.0, attainment=0.99, attainment_by_class={"interactive": 0.99},
        attainment_by_tenant={"acme": 0.99}, misses={}, waiting=0, queued_prefill_s=0.0,
    ),
    replace(
        SAMPLE_STATE, arrivals=0, rate_rps=0.0, rate_trend=0.0, load=None, dispersion={},
        prompt_p50=None, prompt_p90=None, output_p50=None, output_p90=None, psi_lengths=0.0,
        alarms=(), goodput_rps=None, attainment=None, attainment_by_class={},
        attainment_by_tenant={}, misses={}, length_coverage=None, e2e_p95_s=None, waiting=0,
        queued_prefill_s=0.0, weights={}, class_weights={}, floors={}, told=(), proposed=(),
    ),
    replace(
        SAMPLE_STATE, load=3.0, rate_trend=2.0, alarms=("rate_up", "rate_down", "lengths", "mix"),
        attainment=0.0, attainment_by_class={f"class-{i}": 0.0 for i in range(40)},
        attainment_by_tenant={f"tenant-{i}": 0.0 for i in range(400)},
        weights={f"tenant-{i}": 0.33 for i in range(400)}, floors={"tenant-1": 0.05},
        told=tuple(
            OperatorChange("slo_scale", 1.25, 1_000.0, 9_400.0, slo_class=f"class-{i}")
            for i in range(40)
        ),
        proposed=(SAMPLE_STATE.proposed[0],) * 3,
    ),
)  # fmt: skip
