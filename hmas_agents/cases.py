"""How does a recorded run become cases of the policy agent? From the ledger's long decisions.

Called by `hmas trace export --cases`, `hmas eval agent build` and `hmas replay`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hmas_agents.case_file import Case, write_cases
from hmas_agents.config import Config
from hmas_agents.ledger.reader import LedgerReader, StoredDecision
from hmas_agents.ledger.schema import LedgerError
from hmas_agents.situation import SituationError, decode_situation
from serving.policies import POLICIES

UNIX_TIME_S = 1e9  # an engine's clock beyond it is that of a live server


def export_cases(reader: LedgerReader, run: int | None, path: Path) -> int:
    """Write the long decisions of a run (None: of all) as unlabelled cases; how many.

    Raises:
        LedgerError: no decision there has its situation recorded.
    """
    cases = list(cases_of(reader, run))
    if not cases:
        where = f"{reader.path}: " + ("no run" if run is None else f"run {run}")
        raise LedgerError(
            f"{where} has a long decision with its situation; `hmas trace list --horizon long` "
            "shows decisions, and ledgers of older versions hold no situations"
        )
    return write_cases(path, cases)


def cases_of(reader: LedgerReader, run: int | None) -> Iterator[Case]:
    """The long decisions of a run (None: of all) that have their situation, oldest first.

    Raises:
        LedgerError: a situation or a configuration cannot be read.
    """
    for item in reader.list_runs():
        if run in {None, item.id}:
            allowed = allowed_by(item.config)
            for stored in reader.list_decisions(item.id, "long"):
                if stored.record.situation:
                    yield _case_of(reader.path, item.label, allowed, stored)


def allowed_by(config: dict[str, Any]) -> tuple[str, ...]:
    """Policies that a run's recorded configuration allows and that exist today."""
    listed = config.get("control", {}).get("allow_policies") or Config().control.allow_policies
    return tuple(name for name in listed if name in POLICIES)


def _case_of(path: Path, label: str, allowed: tuple[str, ...], stored: StoredDecision) -> Case:
    record = stored.record
    try:
        situation = decode_situation(record.situation)
    except SituationError as error:
        raise LedgerError(f"{path}: decision {stored.id}: situation.{error}") from error
    return Case(
        id=f"{path.stem}-{stored.run_id}-{stored.id}",
        scenario=label or f"{path.stem}-run-{stored.run_id}",
        split="development",
        situation=situation,
        allowed=allowed,
        provenance={
            "kind": "live" if record.at_s > UNIX_TIME_S else "simulated",
            "ledger": path.name,
            "run": stored.run_id,
            "decision": stored.id,
        },
    )
