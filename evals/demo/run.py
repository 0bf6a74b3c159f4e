"""How does the demo go? Server, capacity, the two arms, the books, the report."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from evals.demo.books import Books, check_books
from evals.demo.view import ArmView
from evals.live.own_server import own_server
from evals.live.run import LiveCase, LiveOptions, capacity_rps, run_case
from evals.live.server import connect, wait_until_idle
from evals.live.totals import engine_totals, exported_totals
from evals.progress import CaseProgress
from evals.report.case_section import CaseReport
from evals.report.page import write_report
from evals.report.sheet import terminal
from evals.report.summary import Summary
from evals.report.tables import case_sheets
from evals.requests.offer import Workload, offer
from evals.requests.scenario import build_workload
from evals.result.metrics import CaseRun, Result, summarise
from evals.result.recording import RecordedEngine
from evals.result.run_result import SuiteRun, to_json, versions
from evals.suite.arms import ControllerOptions
from evals.suite.suite import Suite, load_suite
from hmas_agents.ledger import LedgerReader
from serving.engines.live import LiveEngine, read_token

SUITE = Path(__file__).parent.parent / "suites" / "demo.toml"
CONTROLLER = Path(__file__).parent / "controller.toml"
MAX_MODEL_LEN = 2048  # of the server that runs for evals
CAPACITY_S = 40.0
REQUEST_LIMIT_S = 600.0
ARM_TITLES = {"vllm-fcfs": "vLLM default order", "hmas": "H-MAS acting"}
_PREPARES = {
    "vllm-fcfs": "no controller, first come, first served",
    "hmas": "the controller takes charge and warms its twin (about 15 s)",
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


@dataclass(frozen=True, slots=True)
class DemoRun:
    """What came of it: one result per arm, and the books."""

    suite: SuiteRun
    books: Books


def run_demo(options: DemoOptions, console: Console) -> DemoRun:
    """Start a server, replay the same requests under both arms, write the report, stop it.

    Raises:
        ServerError, ArmError, CapacityError, WorkerError: one line says what to do.
    """
    suite = load_suite(SUITE)
    workload = _workload(suite, options)
    options.out.mkdir(parents=True, exist_ok=True)
    ledger = options.out / "ledger.sqlite"
    for stale in options.out.glob("ledger.sqlite*"):
        stale.unlink()
    console.print(f"starting vLLM with the hook (1-2 minutes; log: {options.out / 'vllm.log'})")
    with (
        own_server(suite.settings, options.out, port=options.port) as own,
        closing(LiveEngine(own.url, read_token(own.token_file))) as engine,
    ):
        server = connect(own.url, engine)
        console.print(f"measuring capacity for {CAPACITY_S:g} s")
        with CaseProgress() as progress:
            most_rps = capacity_rps(server, workload, seconds=CAPACITY_S, progress=progress)
        offered = offer(workload, options.load * most_rps).requests
        console.print(
            f"replaying {len(offered)} requests ({workload.provenance}) at {options.load:g} times "
            "the capacity, twice",
            soft_wrap=True,
        )
        controller = ControllerOptions(CONTROLLER, f"{own.url}/v1", own.model, ledger)
        live = LiveOptions(controller, timeout_s=REQUEST_LIMIT_S)
        wait_until_idle(engine)
        before = engine_totals(engine.snapshot().counters)
        runs: list[CaseRun] = []
        results: list[Result] = []
        for name in suite.arms:
            recorded = RecordedEngine(engine)
            case = LiveCase(
                suite.scenarios[0].name, options.load, name, offered, suite.settings,
                workload.span, recorded,
            )  # fmt: skip
            console.print(f"{ARM_TITLES[name]}: {_PREPARES[name]}")
            with ArmView(console, ARM_TITLES[name], len(offered), recorded) as view:
                run, played = run_case(
                    case, server, seed=options.seed, options=live, on_event=view.on_event
                )
            runs.append(run)
            results.append(summarise(
                run, workload.span.counted_until_s, start_s=played.start_s
            ) | {
                "trace": workload.provenance, "capacity_rps": most_rps, "engine": "live",
                **played.client,
            })  # fmt: skip
        wait_until_idle(engine)
        books = check_books(engine, before, exported_totals(own.url), runs)
    outcome = SuiteRun(suite.name, options.seed, versions(), results, runs)
    _write(outcome, suite, options)
    return DemoRun(outcome, books)


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


def print_summary(run: DemoRun, options: DemoOptions, console: Console) -> None:
    """The table side by side, the ratio, the books, and where everything is."""
    for sheet in case_sheets(Summary.of(run.suite.results)):
        console.print(terminal(sheet))
    by_arm = {result["arm"]: result for result in run.suite.results}
    stock, ours = by_arm["vllm-fcfs"]["goodput_rps"], by_arm["hmas"]["goodput_rps"]
    ratio = f"{ours / stock:.2f} times" if stock else "where the default order had none"
    console.print(f"goodput of H-MAS: {ours:.2f}/s against {stock:.2f}/s, {ratio}")
    console.print(run.books.text(), markup=False, soft_wrap=True)
    ledger = options.out / "ledger.sqlite"
    console.print(_decisions(ledger), soft_wrap=True)
    console.print(f"ledger:  {ledger}  (hmas trace list --ledger {ledger})", soft_wrap=True)
    console.print(f"report:  {options.out / 'report.html'}", soft_wrap=True)


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
