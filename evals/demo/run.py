"""How does the demo go? Server, capacity, the two arms, the books, the report."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evals.live.own_server import own_server
from evals.live.run import LiveCase, LiveOptions, capacity_rps, run_case
from evals.live.server import connect, wait_until_idle
from evals.live.totals import Totals, engine_totals, exported_totals
from evals.progress import CaseProgress
from evals.report.case_section import CaseReport
from evals.report.page import write_report
from evals.requests.offer import Workload, offer
from evals.requests.scenario import build_workload
from evals.result.metrics import CaseRun, Result, summarise
from evals.result.recording import RecordedEngine
from evals.result.run_result import SuiteRun, to_json, versions
from evals.suite.arms import ControllerOptions
from evals.suite.suite import Suite, load_suite
from hmas_agents.ledger import LedgerReader

SUITE = Path(__file__).parent.parent / "suites" / "demo.toml"
CONTROLLER = Path(__file__).parent / "controller.toml"
MAX_MODEL_LEN = 2048  # of the server that runs for evals
CAPACITY_S = 40.0
REQUEST_LIMIT_S = 600.0
_PREPARES = {
    "vllm-fcfs": "vLLM default order: no controller, first come, first served",
    "hmas": "H-MAS acting: the controller takes charge and warms its twin (about 15 s)",
}


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What the command was asked for; `length_scale` None means the suite's."""

    duration_s: float
    length_scale: float | None
    load: float
    port: int
    out: Path
    seed: int

    @property
    def ledger(self) -> Path:
        """Of the arm with H-MAS."""
        return self.out / "ledger.sqlite"


@dataclass(frozen=True, slots=True)
class DemoRun:
    """What came of it: one result per arm, and where engine and clients count differently."""

    suite: SuiteRun
    mismatches: list[str]


def run_demo(options: DemoOptions, progress: CaseProgress) -> DemoRun:
    """Start a server, replay the same requests under both arms, write the report, stop it.

    Raises:
        ServerError, ArmError, CapacityError, WorkerError: one line says what to do.
    """
    suite = load_suite(SUITE)
    workload = _workload(suite, options)
    options.out.mkdir(parents=True, exist_ok=True)
    for stale in options.out.glob("ledger.sqlite*"):
        stale.unlink()
    with (
        own_server(suite.settings, options.out, progress.note, port=options.port) as own,
        own.engine() as engine,
    ):
        server = connect(own.url, engine)
        most_rps = capacity_rps(server, workload, seconds=CAPACITY_S, progress=progress)
        offered = offer(workload, options.load * most_rps).requests
        progress.note(
            f"replaying {len(offered)} requests ({workload.provenance}) at {options.load:g} times "
            "the capacity, twice"
        )
        controller = ControllerOptions(CONTROLLER, f"{own.url}/v1", own.model, options.ledger)
        live = LiveOptions(controller, timeout_s=REQUEST_LIMIT_S)
        wait_until_idle(engine)
        before = engine_totals(engine.snapshot().counters)
        runs: list[CaseRun] = []
        results: list[Result] = []
        for name in suite.arms:
            case = LiveCase(
                suite.scenarios[0].name, options.load, name, offered, suite.settings,
                workload.span, RecordedEngine(engine),
            )  # fmt: skip
            progress.note(_PREPARES[name])
            run, played = run_case(case, server, seed=options.seed, options=live, progress=progress)
            runs.append(run)
            results.append(summarise(
                run, workload.span.counted_until_s, start_s=played.start_s
            ) | {
                "trace": workload.provenance, "capacity_rps": most_rps, "engine": "live",
                **played.client,
            })  # fmt: skip
        wait_until_idle(engine)
        mismatches = check_books(before, exported_totals(own.url), runs)
    outcome = SuiteRun(suite.name, options.seed, versions(), results, runs)
    _write(outcome, suite, options)
    return DemoRun(outcome, mismatches)


def check_books(before: Totals, exported: Totals, runs: Sequence[CaseRun]) -> list[str]:
    """Where /metrics says otherwise than the clients: each request is received and ends once.

    Args:
        before: the engine's totals before the first arm.
        exported: those on /metrics now. They may have tenants that the clients do not know: the
            policy agent's own requests.
        runs: both arms.
    """
    sent = Counter(outcome.tenant for run in runs for outcome in run.outcomes)
    counted = {name: tenants - before[name] for name, tenants in exported.items()}
    ended = counted["finished"] + counted["aborted"]
    return [
        f"{tenant}: {number} sent, {counted['received'][tenant]} received, {ended[tenant]} ended"
        for tenant, number in sent.items()
        if not number == counted["received"][tenant] == ended[tenant]
    ]


def _workload(suite: Suite, options: DemoOptions) -> Workload:
    suite = suite.with_minutes(options.duration_s / 60)
    scenario = suite.scenarios[0]
    if options.length_scale is not None:
        scenario = scenario.model_copy(update={"length_scale": options.length_scale})
    return build_workload(suite, scenario, options.seed, MAX_MODEL_LEN)


def _write(run: SuiteRun, suite: Suite, options: DemoOptions) -> None:
    (options.out / "results.json").write_text(to_json(run) + "\n", encoding="utf-8")
    decisions = next((case.decisions for case in run.runs if case.arm == "hmas"), ())
    by_arm = {case.arm: case.outcomes for case in run.runs}
    write_report(
        options.out / "report.html",
        "H-MAS demo",
        f"{suite.description}. {options.load:g} times the measured capacity; seed {run.seed}.",
        run.results,
        [CaseReport(suite.scenarios[0].name, options.load, by_arm, decisions)],
    )


def summary_lines(run: DemoRun, options: DemoOptions) -> list[str]:
    """Below the table: the ratio, the books, the decisions, and where everything is."""
    by_arm = {result["arm"]: result for result in run.suite.results}
    stock, ours = by_arm["vllm-fcfs"]["goodput_rps"], by_arm["hmas"]["goodput_rps"]
    ratio = f"{ours / stock:.2f} times" if stock else "where the default order had none"
    sent = sum(len(case.outcomes) for case in run.suite.runs)
    books = "; ".join(run.mismatches) or f"balanced: {sent} sent, received and ended"
    ledger = options.ledger
    return [
        f"goodput of H-MAS: {ours:.2f}/s against {stock:.2f}/s, {ratio}",
        f"books: {books}",
        _decisions(ledger),
        f"ledger:  {ledger}  (hmas trace list --ledger {ledger})",
        f"report:  {options.out / 'report.html'}",
    ]


def _decisions(ledger: Path) -> str:
    with LedgerReader(ledger) as reader:
        long = [stored.record for stored in reader.list_decisions(horizon="long")]
        short = [stored.record for stored in reader.list_decisions(horizon="short")]
    calls = [call for record in (*long, *short) for call in record.tool_calls]
    answered = sum(any(p.source == "model" for p in record.proposals) for record in long)
    return (
        f"decisions taken: {len(long)} on the long horizon ({answered} with a usable reply of the "
        f"model), {len(short)} on the short; {sum(call.accepted for call in calls)} of "
        f"{len(calls)} tool calls accepted"
    )
