"""What does an operator say while a case runs? Told as by `hmas tell`, judged as by everybody else.

Called by the arms with a loop.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from evals.arms.case import SimulatedCase
from evals.result.metrics import CaseRun
from hmas_agents.intent.told import ToldStore, told_path
from serving.contracts import SLO, Outcome
from serving.engines.offered import promised_to
from serving.perception.accounting import judge


@contextmanager
def operator_of(case: SimulatedCase) -> Iterator[tuple[Path | None, Callable[[float], None]]]:
    """Where the loop's ledger is, and what to call with the time before each of its ticks.

    What is said by then is approved in the file of what was told, beside that ledger: the
    controller follows it. The ledger of a case in which something is said is not kept.
    """
    if not case.said:
        yield case.controller.ledger_path, lambda _: None
        return
    unsaid = sorted(case.said, key=lambda one: one.at_s)
    with TemporaryDirectory() as folder:
        ledger_path = Path(folder) / "ledger.sqlite"
        with ToldStore(told_path(ledger_path), create=True) as store:

            def speak(now_s: float) -> None:
                while unsaid and unsaid[0].at_s <= now_s:
                    said = unsaid.pop(0)
                    told = store.add(said.at_s, "operator", said.text)
                    store.approve(told, [replace(each, told=told) for each in said.changes])

            yield ledger_path, speak


def as_promised(case: SimulatedCase, run: CaseRun) -> CaseRun:
    """Judged by the targets that hold without words: a change of these makes nothing better."""
    promised = [promised_to(one, case.settings)[1] for one in case.requests]
    outcomes = list(map(_judged, run.outcomes, promised))
    return replace(run, outcomes=outcomes)


def _judged(one: Outcome, slo: SLO) -> Outcome:
    if one.slo == slo:
        return one
    met, miss = judge(
        slo, one.queue_s, one.ttft_s, one.tpot_s, one.e2e_s, one.late_gaps,
        max(0, one.output_tokens - 1),
    )  # fmt: skip
    if one.finish not in ("stop", "length"):
        met, miss = False, miss or "not_served"
    return replace(one, slo=slo, met=met, miss=miss)
