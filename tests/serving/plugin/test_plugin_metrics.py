"""Do tenants and classes reach Prometheus, summed over engine cores?"""

from types import SimpleNamespace
from typing import Any

from serving.contracts import HistogramCounts, RoutingHint, TenantCounters, Totals, encode
from serving.contracts.rules import COUNTERS
from serving.contracts.settings import EngineSettings
from serving.engines.simulated import SimulatedEngine
from serving.perception.latencies import BOUNDS
from serving.plugin.admission_gate import AdmissionGate
from serving.plugin.engine_methods import hmas_call
from serving.plugin.metrics import TenantCollector
from tests.serving.samples import arrival, profile


def rank(number: int, **changes: Any) -> dict[str, Any]:
    row = encode(TenantCounters("acme", "batch", 5, 3, 1, 2, 70, 8, 400, 100))
    other = {**row, "tenant": "other"}
    counts = dict.fromkeys(COUNTERS, 0) | {"parked": number + 6}
    totals = Totals(number, 0, "fcfs", 0.0, 0, 2, 1, (), counts)
    return {**encode(totals), "counters": [row, other], **changes}


def samples(collector: TenantCollector) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in collector.collect()
        for sample in family.samples
    }


def test_totals_are_summed_over_ranks_and_states_are_not():
    collector = TenantCollector()
    other = rank(1, epoch=5, policy="edf", policy_errors=2, shed=0.5, stopped=True)
    collector.update([rank(0, epoch=4), other])
    values = samples(collector)
    totals = {"requests_received": 10, "requests_finished": 6, "requests_aborted": 2,
              "requests_met": 4, "requests_rejected": 16, "output_tokens": 140,
              "prompt_tokens": 800, "cached_prompt_tokens": 200}  # fmt: skip
    for name, total in totals.items():
        for tenant in ("acme", "other"):
            assert values[f"hmas_{name}_total", tenant, "batch"] == total
    assert (values["hmas_shed_share", "0"], values["hmas_shed_share", "1"]) == (0, 0.5)
    assert (values["hmas_stopped", "0"], values["hmas_stopped", "1"]) == (0, 1)
    assert (values["hmas_epoch", "0"], values["hmas_epoch", "1"]) == (4, 5)
    assert (values["hmas_faults", "0"], values["hmas_faults", "1"]) == (0, 2)
    assert values["hmas_policy_info", "0", "fcfs"] == values["hmas_policy_info", "1", "edf"] == 1
    assert [values["hmas_rule_total", r, "parked"] for r in "01"] == [6, 7]
    assert values["hmas_rule_total", "1", "ceiling_served"] == 0
    assert (values["hmas_waiting_requests", "0"], values["hmas_running_requests", "1"]) == (2, 1)


def test_before_the_first_totals_there_are_families_without_samples():
    assert samples(TenantCollector()) == {}


def test_histograms_are_summed_over_ranks_and_cumulated():
    bounds = BOUNDS["ttft_seconds"]
    counts = (2, 1, *[0] * (len(bounds) - 2), 4)
    told = encode(HistogramCounts("ttft_seconds", "acme", "batch", counts, 500.0))
    collector = TenantCollector()
    collector.update([rank(0, histograms=[told]), rank(1, histograms=[told])])
    values = samples(collector)
    ours = {key[-1]: value for key, value in values.items() if key[0] == "hmas_ttft_seconds_bucket"}
    assert (ours[str(bounds[0])], ours[str(bounds[1])], ours["+Inf"]) == (4, 6, 14)
    assert list(ours.values()) == sorted(ours.values())
    assert values["hmas_ttft_seconds_count", "acme", "batch"] == 14
    assert values["hmas_ttft_seconds_sum", "acme", "batch"] == 1000.0


def test_routers_see_what_each_engine_owes_by_when():
    engine = SimulatedEngine(profile(), EngineSettings())
    core, collector = SimpleNamespace(scheduler=engine.scheduler), TenantCollector()
    told = hmas_call(core, "totals", {})
    assert hmas_call(core, "totals", {"light": True})["hint"] is None
    hint = RoutingHint(tuple(i / 10 for i in range(10)), 2e-4, 0.03)
    collector.update([told, rank(1, hint=encode(hint))])
    values = samples(collector)
    family = "hmas_prefill_due_seconds"
    assert [values[family, "0", within] for within in ("0.25", "64.0", "+Inf")] == [0.0] * 3
    owed = [values[family, "1", within] for within in ("0.25", "1.0", "64.0", "+Inf")]
    assert owed == [0.0, 0.2, 0.8, 0.9]
    assert values["hmas_prefill_seconds_per_token", "1"] == 2e-4
    assert values["hmas_decode_step_seconds", "0"] > 0
    assert values["hmas_decode_step_seconds", "1"] == 0.03


def test_refusals_of_two_api_servers_are_each_counted_once_and_shown_by_both():
    core = SimpleNamespace(scheduler=SimulatedEngine(profile(), EngineSettings()).scheduler)
    servers = [(AdmissionGate(), TenantCollector()) for _ in range(2)]
    for number in range(5):
        servers[number % 2][0].note(arrival(number))
    for _ in range(2):  # two polls each: what was told is not told again
        for gate, collector in servers:
            collector.update([hmas_call(core, "totals", gate.take_untold())])
    for _, collector in servers:
        assert samples(collector)["hmas_requests_rejected_total", "acme", "batch"] == 5
