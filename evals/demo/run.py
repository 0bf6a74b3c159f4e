"""How does the demo go? Server, capacity, the two arms, the books, words, the report.

The words are one `hmas tell`, as whoever types it sees it. It is answered with no: the demo's
controller has ended, and nobody has asked for it. It cannot let the demo fail: what goes wrong is
one line.
"""

import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evals.live.own_server import own_server
from evals.live.run import LiveRun, capacity_rps, run_live_suite
from evals.live.server import Totals, connect, engine_totals, exported_totals, wait_until_at_rest
from evals.progress import CaseProgress
from evals.report.files import write_files
from evals.requests.scenario import build_workload
from evals.result.metrics import CaseRun
from evals.result.run_result import SuiteRun
from evals.suite.arms import ControllerOptions
from evals.suite.suite import load_suite
from hmas_agents.ledger import LedgerReader

SUITE = Path(__file__).parent.parent / "suites" / "demo.toml"
CONTROLLER = Path(__file__).parent / "controller.toml"
MAX_MODEL_LEN = 2048  # of the server that runs for evals
CAPACITY_S = 40.0
REQUEST_LIMIT_S = 600.0
TEXT = (
    "acme-chat launches, expect twice their requests for 10 minutes; "
    "initech-docs can wait for 10 minutes"
)
HMAS = (sys.executable, "-P", "-c", "from hmas_agents.cli import main; main()")
LIMIT_S = 180.0  # 5 s where the compiled code is on disk, a minute and more where it is not
YOURSELF = (
    "say it yourself: `hmas serve`, beside it `hmas run --mode act`; a minute later `hmas tell "
    '"..."` with tenants of your contract, and y'
)


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
    """What came of it."""

    suite: SuiteRun  # one result per arm
    mismatches: list[str]  # where engine and clients count differently
    told: list[str]  # what one `hmas tell` showed


def run_demo(options: DemoOptions, progress: CaseProgress) -> DemoRun:
    """Start a server, replay the same requests under both arms, write the report, stop it.

    Raises:
        ServerError, ArmError, CapacityError, WorkerError: one line says what to do.
    """
    suite = load_suite(SUITE).with_minutes(options.duration_s / 60)
    suite = suite.model_copy(update={"loads": (options.load,), "seeds": (options.seed,)})
    scenario = suite.scenarios[0]
    if options.length_scale is not None:
        scenario = scenario.model_copy(update={"length_scale": options.length_scale})
    workload = build_workload(suite, scenario, options.seed, MAX_MODEL_LEN)
    options.out.mkdir(parents=True, exist_ok=True)
    for stale in options.out.glob("ledger*.sqlite*"):
        stale.unlink()
    with (
        own_server(suite.settings, options.out, progress.note, port=options.port) as own,
        own.engine() as engine,
    ):
        server = connect(own.url, engine)
        most_rps = capacity_rps(server, workload, CAPACITY_S, progress)
        progress.note(
            f"replaying {workload.provenance} at {options.load:g} times the capacity, twice: in "
            "vLLM's default order, then with H-MAS acting (15 s more to take charge)"
        )
        controller = ControllerOptions(CONTROLLER, f"{own.url}/v1", own.model, options.ledger)
        live = LiveRun(suite, server, progress, controller=controller, timeout_s=REQUEST_LIMIT_S)
        wait_until_at_rest(server)
        before = engine_totals(engine.snapshot().counters)
        run = run_live_suite(live, [workload], {workload.scenario: most_rps})
        wait_until_at_rest(server)
        mismatches = check_books(before, exported_totals(own.url), run.runs)
        progress.note("asking what words would change (hmas tell)")
        told = show_tell(
            "--url", own.url, "--token-file", str(own.token_file),
            "--ledger", str(options.ledger), "--config", str(CONTROLLER),
        )  # fmt: skip
    text = f"{suite.description}. {options.load:g} times the measured capacity"
    write_files(run, options.out, text)
    return DemoRun(run, mismatches, told)


def check_books(before: Totals, exported: Totals, runs: Sequence[CaseRun]) -> list[str]:
    """Where /metrics says otherwise than the clients: each request is received and ends once.

    `exported` may have tenants that the clients do not know: the policy agent's own requests. Of
    what a client gave up before a token came, the engine may never have heard.
    """
    sent, given_up = Counter[str](), Counter[str]()
    for outcome in (outcome for run in runs for outcome in run.outcomes):
        sent[outcome.tenant] += 1
        given_up[outcome.tenant] += outcome.finish == "unfinished" and outcome.ttft_s is None
    counted = {name: tenants - before[name] for name, tenants in exported.items()}
    ended = counted["finished"] + counted["aborted"]
    return [
        f"{tenant}: {number} sent, {counted['received'][tenant]} received, {ended[tenant]} ended"
        for tenant, number in sent.items()
        if counted["received"][tenant] != ended[tenant]
        or not number - given_up[tenant] <= ended[tenant] <= number
    ]


def summary_lines(run: DemoRun, options: DemoOptions) -> list[str]:
    """Below the table: the ratio, the books, the decisions, where everything is, and words."""
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
        "",
        *run.told,
    ]


def _decisions(ledger: Path) -> str:
    with LedgerReader(ledger) as reader:
        long = [stored.record for stored in reader.list_decisions(horizon="long")]
        short = [
            stored.record
            for stored in reader.list_decisions(horizon="short")
            if not stored.record.trigger.startswith("person")
        ]
    calls = [call for record in (*long, *short) for call in record.tool_calls]
    answered = sum(any(p.source == "model" for p in record.proposals) for record in long)
    return (
        f"decisions taken: {len(long)} on the long horizon ({answered} with a usable reply of the "
        f"model), {len(short)} on the short; {sum(call.accepted for call in calls)} of "
        f"{len(calls)} tool calls accepted"
    )


def show_tell(*options: str, hmas: tuple[str, ...] = HMAS, limit_s: float = LIMIT_S) -> list[str]:
    """The command, what it understood and foresaw, the answer, and how to do it oneself.

    `options` of `hmas tell` name server, token, ledger and configuration.
    """
    said = why = ""
    try:
        done = subprocess.run(
            [*hmas, "tell", TEXT, *options],
            input="n\n", capture_output=True, text=True, timeout=limit_s, check=False,
        )  # fmt: skip
        said, why = done.stdout.rstrip(), done.stderr.strip() or f"exit code {done.returncode}"
    except subprocess.TimeoutExpired:
        why = f"no answer within {limit_s:g} s"
    except OSError as error:
        why = str(error)
    if not said.startswith("understood"):
        return [f"words were not shown: {why.splitlines()[-1]}"]
    return [f'$ hmas tell "{TEXT}"', f"{said} n", YOURSELF]
