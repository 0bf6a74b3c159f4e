"""Which decisions does the list show? Filtered and in pages, newest first."""

from dataclasses import asdict
from typing import Any

from hmas_agents.ui.decision_rows import DecisionRow
from hmas_agents.ui.ledgers import RunData
from hmas_agents.ui.timeline import bounds_s

PAGE_ROWS = 300


def list_rows(
    data: RunData, *, horizon: str = "", only: str = "", before: int | None = None
) -> dict[str, Any]:
    """At most 300 rows, and how many there are in all.

    Args:
        data: what is known of the run.
        horizon: `long`, `short`, or empty for both.
        only: `changed` (the engine was told something new), `faults`, or empty.
        before: only decisions with a smaller id, for the next page.
    """
    start_s, _ = bounds_s(data)
    found = [row for row in data.rows if _wanted(row, horizon, only)]
    page = [row for row in found if before is None or row.id < before][-PAGE_ROWS:]
    return {
        "total": len(found),
        "rows": [
            asdict(row) | {"since_start_s": row.at_s - start_s, "changed": row.changed}
            for row in reversed(page)
        ],
        "more": bool(page) and page[0] is not found[0],
    }


def _wanted(row: DecisionRow, horizon: str, only: str) -> bool:
    if horizon and row.horizon != horizon:
        return False
    return not (only == "changed" and not row.changed) and not (only == "faults" and not row.faults)
