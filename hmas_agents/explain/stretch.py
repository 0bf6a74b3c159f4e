"""Which requests were there around one, as the simulator can serve them again?

Pure functions over a run's outcomes; called by `hmas_agents.explain.explanation`. An
outcome tells what came of a request and not every step of it, so where it was at a moment
in between is worked out; `hmas_agents.explain.counterfactual` measures how well that does.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from hmas_agents.explain.life import SERVED, admitted_s
from serving.contracts import Outcome, ResidentRequest, TraceRequest, with_classes
from serving.contracts.settings import EngineSettings

TAIL_S = 15.0  # traffic goes on behind its end, as it did
LEARN_S = 300.0  # answers that ended so long before the stretch are learnt from
MAX_REPLAYED = 2000


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of a run to serve again, from the engine's state at its start.

    Attributes:
        start_s: on the run's clock; everything else counts from there.
        judged_until_s: requests that arrive later are served, and not counted.
        begun: the requests inside at the start, running ones first, and the true length in
            tokens of the whole answer.
        offered / real: the requests that came after that, and what came of each.
        index: the place of the explained request among them.
        served: (tenant, prompt, max_tokens, output) of answers that had ended by the start.
        notes: what the reader must know of it.
    """

    start_s: float
    judged_until_s: float
    settings: EngineSettings
    begun: tuple[tuple[ResidentRequest, int], ...]
    offered: tuple[TraceRequest, ...]
    real: tuple[Outcome, ...]
    index: int
    served: tuple[tuple[str, int, int, int], ...]
    notes: tuple[str, ...] = ()


def cut_stretch(
    outcome: Outcome, around: Sequence[Outcome], lead_s: float, ranks: int = 1
) -> Stretch:
    """The stretch from `lead_s` before the request came until its traffic has gone by.

    Args:
        outcome: the request to explain; it must have reached the engine's queue.
        around: the run's outcomes in order of arrival, `outcome` among them.
        lead_s: how long before.
        ranks: data-parallel engine cores; of several, every N-th request is kept, one of
            them `outcome`, since the simulator is one core.
    """
    notes = []
    known = [o for o in around if o.finish != "rejected"]
    end_s = outcome.finished_s + TAIL_S
    offered = [o for o in known if outcome.arrival_s - lead_s <= o.arrival_s <= end_s]
    at = offered.index(outcome)
    offered = offered[at % ranks :: ranks]
    if ranks > 1:
        notes.append(f"of {ranks} data-parallel ranks one is replayed, with every N-th request")
    kept = _keep(offered, offered.index(outcome))
    if len(kept) < len(offered):
        notes.append(f"only {len(kept)} of the {len(offered)} requests around it are replayed")
    start_s = outcome.arrival_s - lead_s if kept[0] is offered[0] else kept[0].arrival_s
    if not any(o.arrival_s < start_s < o.finished_s for o in known):
        start_s = kept[0].arrival_s  # an idle engine until then
    answers, longest = _Answers(known), max(1, *(o.output_tokens for o in known))
    begun = [
        one
        for o in [o for o in known if o.arrival_s < start_s < o.finished_s][::ranks]
        if (one := inside_at(o, start_s, answers(o), longest)) is not None
    ]
    if cut := sum(o.finish == "aborted" for o in kept):
        notes.append(
            f"{cut} of {len(kept)} requests were aborted, so the length of their answers is not "
            "known: they are replayed to the end, with their tenant's mean length; counted are "
            "only requests that were served"
        )
    return Stretch(
        start_s,
        outcome.finished_s,
        EngineSettings(contract=with_classes({o.slo_class: o.slo for o in kept})),
        tuple(sorted(begun, key=lambda one: (not one[0].running, one[0].admitted_s or 0.0))),
        tuple(
            TraceRequest(
                o.arrival_s - start_s, o.prompt_tokens, answers(o), o.tenant, o.slo_class,
                max_tokens=longest, slo=o.slo, cached_tokens=o.cached_tokens,
            )
            for o in kept
        ),
        tuple(kept),
        kept.index(outcome),
        tuple(
            (o.tenant, o.prompt_tokens, longest, o.output_tokens)
            for o in sorted(known, key=lambda o: o.finished_s)
            if o.finished_s <= start_s and o.finish in SERVED
        ),
        tuple(notes),
    )  # fmt: skip


def inside_at(
    outcome: Outcome, at_s: float, total: int, max_tokens: int
) -> tuple[ResidentRequest, int] | None:
    """Where a request was at `at_s`, its times counted from then, and its answer's length.

    Within prefill, and from token to token, it is taken to have gone on evenly, and
    not to have been preempted. None when nothing was left to do.

    Args:
        outcome: what came of it.
        at_s: on the run's clock, between its arrival and its end.
        total: length of its whole answer in tokens.
        max_tokens: the longest answer it allowed.
    """
    admitted = admitted_s(outcome)
    waits = ResidentRequest(
        outcome.request_id, outcome.arrival_s - at_s, outcome.tenant, outcome.slo_class,
        outcome.slo, outcome.prompt_tokens, max(max_tokens, total),
        cached_tokens=outcome.cached_tokens,
    )  # fmt: skip
    if admitted is None or admitted > at_s:
        return waits, total
    runs = replace(waits, running=True, admitted_s=admitted - at_s)
    first_s = None if outcome.ttft_s is None else outcome.arrival_s + outcome.ttft_s
    if first_s is None or first_s > at_s:
        until_s = outcome.finished_s if first_s is None else first_s
        share = (at_s - admitted) / (until_s - admitted) if until_s > admitted else 0.0
        computed = min(outcome.prompt_tokens - 1, int(outcome.prompt_tokens * share))
        return replace(runs, computed_tokens=max(0, computed)), total
    done = min(total - 1, 1 + int((at_s - first_s) / outcome.tpot_s) if outcome.tpot_s else 1)
    if done < 1:
        return None
    decodes = replace(
        runs,
        first_token_s=first_s - at_s,
        output_tokens=done,
        computed_tokens=outcome.prompt_tokens + done - 1,
    )
    return decodes, total


class _Answers:
    """How long an answer is, in tokens: of an aborted request its tenant's mean, or what it got."""

    def __init__(self, outcomes: Sequence[Outcome]) -> None:
        served: dict[str, list[int]] = defaultdict(list)
        for o in outcomes:
            if o.finish in SERVED:
                served[o.tenant].append(o.output_tokens)
        self._mean = {tenant: round(fmean(lengths)) for tenant, lengths in served.items()}

    def __call__(self, outcome: Outcome) -> int:
        got = max(1, outcome.output_tokens)
        return got if outcome.finish in SERVED else max(got, self._mean.get(outcome.tenant, 1))


def _keep(offered: list[Outcome], at: int) -> list[Outcome]:
    """At most `MAX_REPLAYED` of them: first the latest lead, then what came after it."""
    ended_s = offered[at].finished_s
    stop = sum(o.arrival_s <= ended_s for o in offered)
    first = min(at, max(0, stop - MAX_REPLAYED))
    return offered[first : first + MAX_REPLAYED]
