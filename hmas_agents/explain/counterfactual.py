"""Would another policy have met a request's SLO? The twin serves its stretch again.

Once as it was, which shows how far the twin is to be believed here, and once under each
other policy, with the limits that were in force. Called by `hmas why`.
"""

import itertools
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from hmas_agents.choice import key_of
from hmas_agents.explain.life import SERVED
from hmas_agents.explain.phases import Phase
from hmas_agents.explain.stretch import Stretch
from serving.contracts import Decision, Miss, Outcome
from serving.engines.compiled import CompiledEngine
from serving.engines.profile import EngineProfile
from serving.engines.resumed import Begun
from serving.policies import format_policy, parse_policy

FOREVER_S = 24 * 3600.0  # the longest lease an engine grants
LOOK_S = 0.1  # how late a change may take effect in the replay

OnProgress = Callable[[str, int, int], None]  # the policy, finished requests, and of how many


class ReplayError(RuntimeError):
    """A stretch that cannot be served again; says why."""


@dataclass(frozen=True, slots=True)
class Replay:
    """One way of serving the stretch, as the twin has it.

    Attributes:
        policy: with its parameters, `edf:kappa=3`; of a replay as it was, all that were in
            force, in order.
        as_it_was: the policies that were really in force.
        met, miss, queue_s, ttft_s, tpot_s, e2e_s: of the explained request.
        others_met / others: of the requests around it that were really served.
    """

    policy: str
    as_it_was: bool
    met: bool
    miss: Miss
    queue_s: float | None
    ttft_s: float | None
    tpot_s: float | None
    e2e_s: float
    others_met: int
    others: int


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well the replay as it was does against what was measured.

    Attributes:
        same_verdict: share (0..1) of all judged requests on which both agree.
        ttft_error_s: median of |twin - real| over the requests with a first token in both.
        real_met / requests: of all judged requests, the explained one among them.
    """

    real_ttft_s: float | None
    twin_ttft_s: float | None
    same_for_it: bool
    same_verdict: float
    ttft_error_s: float | None
    real_met: int
    twin_met: int
    requests: int


@dataclass(frozen=True, slots=True)
class Counterfactual:
    """What the twin says, and how far it may be believed."""

    replays: tuple[Replay, ...]
    agreement: Agreement
    lead_s: float
    provenance: str
    notes: tuple[str, ...]


def replay_policies(
    stretch: Stretch,
    profile: EngineProfile,
    in_force: Sequence[Phase],
    policies: Sequence[str],
    on_progress: OnProgress,
) -> Counterfactual:
    """Serve the stretch as it was, then under each of `policies`, `edf` or `edf:kappa=3`.

    Raises:
        ValueError: a policy or one of its parameters does not exist.
        ReplayError: the simulator refused what was in force, or a policy.
    """
    total = len(stretch.begun) + len(stretch.offered)
    was = _together(format_policy(phase.policy, phase.params) for phase in in_force)

    def reporting(name: str) -> Callable[[int], None]:
        return lambda finished: on_progress(name, finished, total)

    outcomes = serve(stretch, profile, in_force, None, reporting(was))
    replays = [_replay(stretch, outcomes, was, as_it_was=True)]
    agreement = _agreement(stretch, outcomes)
    for policy in policies:
        named = parse_policy(policy)
        if {key_of(p.policy, p.params) for p in in_force} == {key_of(*named)}:
            continue  # that is how it was
        outcomes = serve(stretch, profile, in_force, named, reporting(policy))
        replays.append(_replay(stretch, outcomes, policy, as_it_was=False))
    notes = stretch.notes
    if "priority" in {*policies, *(phase.policy for phase in in_force)}:
        notes += ("the ledger keeps no priorities of requests: `priority` orders by arrival here",)
    lead_s = stretch.real[stretch.index].arrival_s - stretch.start_s
    return Counterfactual(tuple(replays), agreement, lead_s, profile.provenance, notes)


def serve(
    stretch: Stretch,
    profile: EngineProfile,
    in_force: Sequence[Phase],
    policy: tuple[str, dict[str, float]] | None,
    on_progress: Callable[[int], None],
) -> list[Outcome]:
    """One outcome for each request offered; `policy` None means the policies in force.

    Raises:
        ReplayError: the simulator refused.
    """
    engine = CompiledEngine(profile, stretch.settings)
    engine.learn_lengths(stretch.served)
    coming = list(in_force)

    def apply_due() -> None:
        while coming and coming[0].since_s - stretch.start_s <= engine.now():
            phase = coming.pop(0)
            name, params = policy or (phase.policy, phase.params)
            ack = engine.apply(
                Decision("why", engine.snapshot().epoch + 1, FOREVER_S, name, params, phase.limits)
            )
            if not ack.accepted:
                raise ReplayError(f"the simulator refused {name}: {ack.reason}")

    apply_due()
    engine.resume([Begun(inside, tokens) for inside, tokens in stretch.begun])
    tickers = ((LOOK_S, apply_due),) if coming else ()
    return engine.run(stretch.offered, tickers, on_progress=on_progress)


def _replay(stretch: Stretch, outcomes: list[Outcome], policy: str, *, as_it_was: bool) -> Replay:
    it = outcomes[stretch.index]
    others = [o for i, o in _judged(stretch, outcomes) if i != stretch.index]
    return Replay(
        policy, as_it_was, it.met, it.miss, it.queue_s, it.ttft_s, it.tpot_s, it.e2e_s,
        sum(o.met for o in others), len(others),
    )  # fmt: skip


def _agreement(stretch: Stretch, outcomes: list[Outcome]) -> Agreement:
    pairs = [(stretch.real[i], twin) for i, twin in _judged(stretch, outcomes)]
    it, twin_it = stretch.real[stretch.index], outcomes[stretch.index]
    errors = [
        abs(real.ttft_s - twin.ttft_s)
        for real, twin in pairs
        if real.ttft_s is not None and twin.ttft_s is not None
    ]
    return Agreement(
        it.ttft_s, twin_it.ttft_s, it.met == twin_it.met,
        sum(real.met == twin.met for real, twin in pairs) / len(pairs),
        statistics.median(errors) if errors else None,
        sum(real.met for real, _ in pairs), sum(twin.met for _, twin in pairs), len(pairs),
    )  # fmt: skip


def _judged(stretch: Stretch, outcomes: list[Outcome]) -> list[tuple[int, Outcome]]:
    """The explained request, and the requests that came by its end and were really served."""
    return [
        (i, twin)
        for i, (real, twin) in enumerate(zip(stretch.real, outcomes, strict=True))
        if i == stretch.index
        or (real.arrival_s <= stretch.judged_until_s and real.finish in SERVED)
    ]


def _together(names: Iterable[str]) -> str:
    """Names in order, without repeats next to each other."""
    return " > ".join(name for name, _ in itertools.groupby(names))
