"""How good was a run, and how steady? Outcomes in, one result object out.

Goodput is what met all its SLOs and *ended* inside the counted span, per second of it. Attainment
is the share that met all of those that *arrived* inside it, whenever they ended; what was rejected,
aborted, demoted or not finished is a miss. Steadiness is of attainment in windows of 30 s by time
of arrival, so a window shows what its clients got, however late. Called by the runners; the keys
are the public format of `hmas eval run --json`.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from operator import attrgetter
from typing import Any

import numpy as np
import pandas as pd

from evals.result.recording import AppliedDecision, count_switches
from serving.contracts import Contract, Outcome

WINDOW_S = 30.0
TARGET = 0.9
MARGIN = 0.05  # attainment; what a window may fall short of before and still be recovered

Window = tuple[float, float]  # middle in seconds after the first arrival, attainment
PERCENTILES = (50, 90, 99)
NOT_SERVED = ("aborted", "error", "rejected", "unfinished")
_COLUMNS = (
    "arrival_s", "finished_s", "tenant", "slo_class", "prompt_tokens", "output_tokens", "ttft_s",
    "tpot_s", "e2e_s", "met", "finish",
)  # fmt: skip
Result = dict[str, Any]
Facts = Mapping[str, float | str]


def stability(
    windows: Sequence[Window],
    start_s: float,
    end_s: float,
    moments_s: Sequence[float],
    switches: int,
) -> dict[str, Any]:
    """Deviation, worst window, minutes below target, recovery, switches per hour.

    `windows` lack those of the warm-up and without arrivals. One that reaches over `start_s`, where
    the warm-up ends, or over `end_s` counts only if there is no whole one; `moments_s` within the
    warm-up are left out. `switches` are of the whole run.
    """
    half_s = WINDOW_S / 2
    whole = [w for w in windows if w[0] - half_s >= start_s and w[0] + half_s <= end_s]
    counted = whole or list(windows)
    shares = [share for _, share in counted]
    moments_s = [moment_s for moment_s in moments_s if start_s <= moment_s < end_s]
    return {
        "window_s": WINDOW_S,
        "windows": [list(window) for window in counted],
        "deviation": float(np.std(shares)),
        "worst": min(shares),
        "target": TARGET,
        "below_target_min": sum(share < TARGET for share in shares) * WINDOW_S / 60,
        "recovery": [
            {"at_s": moment_s, "recovery_s": recovery_s(counted, before_s, moment_s, until_s)}
            for before_s, moment_s, until_s in zip(
                [start_s, *moments_s], moments_s, [*moments_s[1:], end_s], strict=False
            )
        ],
        "switches_per_hour": switches * 3600 / end_s,
    }


def recovery_s(
    windows: Sequence[Window], before_s: float, moment_s: float, until_s: float
) -> float | None:
    """Seconds from a change until attainment is back for good, or None if it is not.

    Back is at or above the target, or the mean since the change before (`before_s`) less a
    margin where that is lower; for good is until the next change (`until_s`). 0: it never fell.
    A window belongs where its middle lies.
    """
    earlier = [share for middle_s, share in windows if before_s <= middle_s < moment_s]
    level = min([TARGET, *([float(np.mean(earlier)) - MARGIN] if earlier else [])])
    after = [window for window in windows if moment_s <= window[0] < until_s]
    low_s = [middle_s for middle_s, share in after if share < level]
    if not low_s:
        return 0.0 if after else None
    if low_s[-1] == after[-1][0]:
        return None
    return low_s[-1] + WINDOW_S / 2 - moment_s


@dataclass(frozen=True, slots=True)
class CaseRun:
    """What came of one case (scenario, load, arm).

    `recomputed_tokens` are computed tokens that `preemptions` threw away; `chosen` is what an
    arm that chooses in hindsight chose; `itl_s` are figures of all gaps between the tokens of
    requests that count.
    """

    scenario: str
    load: float
    arm: str
    outcomes: Sequence[Outcome]
    decisions: Sequence[AppliedDecision]
    preemptions: int = 0
    recomputed_tokens: int = 0
    chosen: Facts = field(default_factory=dict)
    itl_s: Mapping[str, float | None] = field(default_factory=dict)


def summarise(
    run: CaseRun, span_s: float, *, warmup_s: float = 0.0, moments_s: Sequence[float] = (),
    start_s: float | None = None, contract: Contract | None = None,
    wanted: Sequence[tuple[float, Contract]] = (),
    named: Collection[tuple[str | None, str | None]] = (),
) -> Result:  # fmt: skip
    """The result object of one run.

    Args:
        run: one outcome per offered request, in any order.
        span_s: from `start_s` until nothing counts any more, the same for every arm.
        warmup_s: of the span, from its start, in which arrivals and ends count for nothing.
            Switches, preemptions and recomputed tokens are of the whole run.
        moments_s: when traffic changes, seconds after the start.
        start_s: of the span, on the clock of the outcomes; None: the first arrival.
        contract: says what a request counts for; None: all alike.
        wanted: contracts that say so instead from a moment on, of what is due from then on.
        named: tenants and SLO classes (None: any) that words were about, for their attainment and
            that of the others; none where nothing was said.

    Raises:
        ValueError: no outcomes, or a span that is not longer than the warm-up.
    """
    every = columns(run.outcomes)
    if start_s is None:
        start_s = float(every["arrival_s"].min())
    from_s, counted_s = start_s + warmup_s, span_s - warmup_s
    arrived = every[every["arrival_s"].between(from_s, from_s + counted_s)]
    if arrived.empty or counted_s <= 0:
        raise ValueError(
            f"{len(every)} outcomes over {span_s} s, of which warmup_s = {warmup_s:g} "
            "do not count, have no goodput: take more requests"
        )
    ended = every[every["met"] & every["finished_s"].between(from_s, from_s + counted_s)]
    by_tenant = _shares(arrived, "tenant")
    terms = [(-math.inf, contract), *wanted]
    weights = _weights(arrived, terms)
    switches = count_switches(run.decisions)
    return {
        "scenario": run.scenario,
        "load": run.load,
        "arm": run.arm,
        "requests": len(arrived),
        "uncounted_requests": len(every) - len(arrived),
        "goodput_rps": len(ended) / counted_s,
        "goodput_tokens_per_s": float(ended[["prompt_tokens", "output_tokens"]].sum().sum())
        / counted_s,
        "goodput_weighted_rps": float(_weights(ended, terms).sum() / weights.mean() / counted_s),
        "attainment": float(arrived["met"].mean()),
        "attainment_weighted": float((arrived["met"] * weights).sum() / weights.sum()),
        **({"attainment_by_words": _by_words(arrived, named)} if named else {}),
        "attainment_by_class": _shares(arrived, "slo_class"),
        "attainment_by_tenant": by_tenant,
        "ttft_s": percentiles(arrived["ttft_s"]),
        "tpot_s": percentiles(arrived["tpot_s"]),
        "itl_s": dict(run.itl_s),
        "e2e_s": percentiles(arrived["e2e_s"].where(~arrived["finish"].isin(NOT_SERVED))),
        "not_served": int(arrived["finish"].isin(NOT_SERVED).sum()),
        "jain_by_tenant": jain_index(list(by_tenant.values())),
        "worst_tenant": min(by_tenant, key=lambda tenant: (by_tenant[tenant], tenant)),
        "offered_rps": len(arrived) / counted_s,
        "switches": switches,
        "preemptions": run.preemptions,
        "recomputed_tokens": run.recomputed_tokens,
        "chosen": dict(run.chosen),
        "stability": stability(_windows(arrived, start_s), warmup_s, span_s, moments_s, switches),
    }


def columns(outcomes: Sequence[Outcome]) -> pd.DataFrame:
    """A row per outcome, with what figures are made of; what a request lacks is NaN."""
    rows = pd.DataFrame({name: list(map(attrgetter(name), outcomes)) for name in _COLUMNS})
    # Its first token, or its whole answer where only that was promised.
    targets_ms = [one.slo.ttft_ms or one.slo.e2e_ms or 0.0 for one in outcomes]
    rows["due_s"] = rows["arrival_s"] + np.array(targets_ms) / 1000
    return rows.astype({"met": bool, "ttft_s": float, "tpot_s": float, "e2e_s": float})


def percentiles(values: "pd.Series[float]") -> dict[str, float | int | None]:
    """p50, p90, p99 (linear interpolation) of the values there are; `none`: how many are NaN."""
    known = values.dropna()
    missing: dict[str, float | int | None] = {"none": len(values) - len(known)}
    if known.empty:
        return {f"p{p}": None for p in PERCENTILES} | missing
    points = np.percentile(known, PERCENTILES)
    return {f"p{p}": float(x) for p, x in zip(PERCENTILES, points, strict=True)} | missing


def jain_index(values: Sequence[float]) -> float | None:
    """Jain's fairness index (sum x)^2 / (n sum x^2): 1 is even, 1/n one takes all.

    None when every value is 0. Source: Jain, Chiu and Hawe, DEC-TR-301 (1984).
    """
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else None


def windowed_attainment(
    outcomes: Sequence[Outcome], start_s: float, window_s: float = WINDOW_S
) -> list[tuple[float, float]]:
    """(middle of the window in seconds after `start_s`, attainment of its arrivals), in order."""
    return _windows(columns(outcomes), start_s, window_s)


def rounded(value: Any, digits: int = 6) -> Any:
    """The same JSON value with every float rounded, so that equal runs print equal bytes.

    Infinity, the end of an interval without one, becomes None.
    """
    if isinstance(value, float):
        return None if math.isinf(value) else round(value, digits)
    if isinstance(value, dict):
        return {key: rounded(item, digits) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item, digits) for item in value]
    return value


def _shares(rows: pd.DataFrame, column: str) -> dict[str, float]:
    return {str(group): float(share) for group, share in rows.groupby(column)["met"].mean().items()}


def _weights(
    rows: pd.DataFrame, terms: Sequence[tuple[float, Contract | None]]
) -> "pd.Series[float]":
    """What each request counts for, by the last of the contracts that began before it was due."""
    weights = pd.Series(1.0, rows.index)
    for from_s, contract in terms:
        if contract is not None:
            weight_of = cache(contract.weight_of)
            senders = zip(rows["tenant"], rows["slo_class"], strict=True)
            now = pd.Series([weight_of(*sender) for sender in senders], rows.index, float)
            weights = weights.where(rows["due_s"] < from_s, now)
    return weights


def _by_words(
    rows: pd.DataFrame, named: Collection[tuple[str | None, str | None]]
) -> dict[str, float]:
    """Attainment of those that are `named`, and of the `others`."""
    about = [
        any(whose in (None, tenant) and which in (None, slo_class) for whose, which in named)
        for tenant, slo_class in zip(rows["tenant"], rows["slo_class"], strict=True)
    ]
    return _shares(rows.assign(words=np.where(about, "named", "others")), "words")


def _windows(
    rows: pd.DataFrame, start_s: float, window_s: float = WINDOW_S
) -> list[tuple[float, float]]:
    number = ((rows["arrival_s"] - start_s) // window_s).astype(int)
    shares = rows["met"].groupby(number).mean()
    return [((i + 0.5) * window_s, float(met)) for i, met in zip(shares.index, shares, strict=True)]
