"""Which request is meant, and who was around it? Queries over the ledger's outcomes.

Called by `hmas why`. None needs an index of its own: finding a request by id reads the index
that keeps outcomes unique, and a look at the times of 500,000 outcomes takes under a second.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from hmas_agents.ledger.reader import LedgerReader
from serving.contracts import Outcome, decode

Pick = Literal["missed", "worst", "met"]

# How far a request was past the worst of its targets: 1 is just in time.
_LATENESS = (
    "max(coalesce(json_extract(outcome, '$.ttft_s') * 1e3"
    " / json_extract(outcome, '$.slo.ttft_ms'), 0),"
    " coalesce(json_extract(outcome, '$.tpot_s') * 1e3"
    " / json_extract(outcome, '$.slo.tpot_ms'), 0),"
    " coalesce(json_extract(outcome, '$.e2e_s') * 1e3"
    " / json_extract(outcome, '$.slo.e2e_ms'), 0))"
)
_MISSED = (  # not those whose client left while nothing was due
    "json_extract(outcome, '$.met') = 0 AND"
    " (json_extract(outcome, '$.miss') <> '' OR json_extract(outcome, '$.finish') <> 'aborted')"
)
_PICKS: dict[Pick, tuple[str, str]] = {
    "missed": (_MISSED, "id DESC"),
    "met": ("json_extract(outcome, '$.met') = 1", "id DESC"),
    "worst": (_MISSED, f"{_LATENESS} DESC, id DESC"),
}
# Apart, so that SQLite looks for ids in an index alone and not in whole rows.
_BY_ID = "id IN (SELECT id FROM outcomes WHERE {})"
# What vLLM's API server puts before the id that a client sends.
_SERVER_PREFIXES = ("", "cmpl-", "chatcmpl-")
# With n > 1 each answer is a request of its own, whose id has its number before it: `0_cmpl-abc`.
_ANSWER_OF = "substr(request_id, instr(request_id, '_') + 1)"


@dataclass(frozen=True, slots=True)
class StoredOutcome:
    """An outcome with its place in the ledger."""

    id: int
    run_id: int
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class Attained:
    """The share of some requests that met all their SLOs; None where there are none."""

    share: float | None = None
    requests: int = 0


def find_requests(reader: LedgerReader, text: str, run: int | None = None) -> list[StoredOutcome]:
    """Requests of that id; else those whose id begins so, newest first.

    vLLM calls what a client calls `abc` `cmpl-abc-0-1a2b3c4d`, and its answers with n > 1
    `0_cmpl-abc-0-1a2b3c4d` and so on: all these beginnings count.
    """
    exact = list(_select(reader, _BY_ID.format("request_id = ?"), (text,), run))
    if exact:
        return exact
    begins = [prefix + text for prefix in _SERVER_PREFIXES]
    of_them = " OR ".join(["(request_id >= ? AND request_id < ?)"] * len(begins))
    answers = of_them.replace("request_id", _ANSWER_OF)
    term = f"({of_them}) OR (request_id >= '0' AND request_id < ':' AND ({answers}))"
    values = [bound for begin in begins for bound in (begin, begin + "\U0010ffff")] * 2
    return list(_select(reader, _BY_ID.format(term), tuple(values), run))


def pick_request(
    reader: LedgerReader, which: Pick, run: int | None = None, tenant: str | None = None
) -> StoredOutcome | None:
    """The newest request that missed (or met), or the one furthest past a target; else None."""
    term, order = _PICKS[which]
    values: tuple[Any, ...] = ()
    if tenant is not None:
        term, values = f"{term} AND json_extract(outcome, '$.tenant') = ?", (tenant,)
    return next(_select(reader, term, values, run, order, limit=1), None)


def outcomes_between(
    reader: LedgerReader, run: int, left_since_s: float, arrived_until_s: float
) -> list[Outcome]:
    """A run's requests that were inside at some time in this span, in order of arrival."""
    left, arrived = "json_extract(outcome, '$.finished_s')", "json_extract(outcome, '$.arrival_s')"
    term = f"{left} >= ? AND {arrived} <= ?"
    found = _select(reader, term, (left_since_s, arrived_until_s), run)
    return sorted((s.outcome for s in found), key=lambda o: (o.arrival_s, o.seq))


def newest_outcome_s(reader: LedgerReader) -> float:
    """Engine time at which the last of the stored requests left; 0 without any."""
    query = "SELECT json_extract(outcome, '$.finished_s') AS at_s FROM outcomes ORDER BY id DESC"
    return next((float(row["at_s"]) for row in reader.rows(f"{query} LIMIT 1")), 0.0)


def attained(
    reader: LedgerReader, since_s: float, until_s: float, tenant: str | None, slo_class: str | None
) -> tuple[Attained, Attained]:
    """Of a tenant's and a class's requests (None: of all), and of the others.

    Those that arrived in [since, until) and have left, but for those whose client left while
    nothing was due.
    """
    query = (
        "SELECT (?1 IS NULL OR json_extract(outcome, '$.tenant') = ?1) AND "
        "(?2 IS NULL OR json_extract(outcome, '$.slo_class') = ?2) AS named, "
        "sum(json_extract(outcome, '$.met')) AS met, count(*) AS requests FROM outcomes "
        "WHERE json_extract(outcome, '$.arrival_s') >= ?3 "
        "AND json_extract(outcome, '$.arrival_s') < ?4 "
        f"AND (json_extract(outcome, '$.met') = 1 OR {_MISSED}) GROUP BY named"
    )
    rows = reader.rows(query, (tenant, slo_class, since_s, until_s))
    found = {row["named"]: Attained(row["met"] / row["requests"], row["requests"]) for row in rows}
    return found.get(1, Attained()), found.get(0, Attained())


def _select(
    reader: LedgerReader,
    term: str,
    values: tuple[Any, ...],
    run: int | None,
    order: str = "id DESC",
    limit: int = -1,
) -> Iterator[StoredOutcome]:
    # `+` keeps SQLite from sorting by the index of runs: rows lie in order of id already.
    where, values = (term, values) if run is None else (f"+run_id = ? AND {term}", (run, *values))
    query = f"SELECT id, run_id, outcome FROM outcomes WHERE {where} ORDER BY {order} LIMIT ?"
    for row in reader.rows(query, (*values, limit)):
        outcome = decode(Outcome, json.loads(row["outcome"]))
        yield StoredOutcome(row["id"], row["run_id"], outcome)
