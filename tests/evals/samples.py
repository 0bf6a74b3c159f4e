"""Requests and outcomes for the tests of the evals."""

from serving.contracts import SLO, Finish, Outcome, TraceRequest


def offered(*arrivals_s: float, prompt: int = 100, output: int = 10) -> tuple[TraceRequest, ...]:
    return tuple(TraceRequest(arrival_s, prompt, output) for arrival_s in arrivals_s)


def outcome(
    seq: int = 0,
    *,
    arrival_s: float = 0.0,
    met: bool = True,
    tenant: str = "a",
    slo_class: str = "interactive",
    finish: Finish = "length",
    ttft_s: float | None = 0.1,
    tpot_s: float | None = 0.02,
    finished_s: float | None = None,
    preemptions: int = 0,
) -> Outcome:
    return Outcome(
        seq=seq,
        request_id=f"r{seq}",
        arrival_s=arrival_s,
        finished_s=arrival_s + 1 if finished_s is None else finished_s,
        tenant=tenant,
        slo_class=slo_class,
        slo=SLO(ttft_ms=500, tpot_ms=30),
        prompt_tokens=100,
        output_tokens=10,
        queue_s=0.0,
        ttft_s=ttft_s,
        tpot_s=tpot_s,
        e2e_s=1.0,
        met=met,
        miss="" if met else "tpot",
        finish=finish,
        policy="fcfs",
        epoch=0,
        preemptions=preemptions,
    )
