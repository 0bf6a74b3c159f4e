"""How would an engine go on under each of many decisions? Its state is built once, and tried often.

The compiled engine and its hook over copied arrays. A branch costs what its steps cost: no object
for a request, no books, no lease.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from serving.contracts import (
    SLO,
    CostCoefficients,
    Decision,
    Limits,
    ResidentRequest,
    TraceRequest,
)
from serving.contracts.requests import meets_itl
from serving.contracts.settings import EngineSettings
from serving.contracts.state import full_batch
from serving.core.jit import compiled_in_place
from serving.core.sorting import sort
from serving.core.state import Core, new_core
from serving.engines.block_contents import gather
from serving.engines.gaps import promise
from serving.engines.hooked_steps import put_back_hooked, run_hooked
from serving.engines.notes import Notes, new_notes
from serving.engines.offered import Workload, as_the_trace_says, columns, slos_of
from serving.engines.profile import EngineProfile
from serving.engines.put_back import begun_rows
from serving.engines.resumed import Begun
from serving.engines.step_state import COMING, REJECTED, SERVED, EngineState, new_state
from serving.engines.virtual_hook import VirtualHook
from serving.engines.virtual_steps import PAUSED
from serving.hook.lease import clamp
from serving.policies import complete_params

_meets_itl = compiled_in_place(meets_itl)
_KNOWN = ("tenants", "engine", "groups", "cost")  # of the engine, not of its requests
_SLICE_STEPS = 10_000  # about 30 ms: then Ctrl-C is heard
# Work in seconds: the CPU time of a quiet core, fitted on 40 recorded situations and two with 5,000
# requests waiting (9 of 10 branches took 0.85 to 1.4 times as long). Of each request that is known;
# of a future and each request in it; of a branch, each request in it, each step, and each request
# that runs in a step, beside what a rule adds that puts these in order.
_BUILT_S = 7e-6
_FUTURE_S, _DRAWN_S = 4e-4, 7e-7
_BRANCH_S, _REQUEST_S, _STEP_S, _RUNNING_S = 1e-4, 7e-7, 5e-8, 2.3e-8
_SORTED_S = {"pace_decodes": 3.2e-8}


@dataclass(frozen=True, slots=True)
class Drawn:
    """One future of an engine: what comes, and how long the answers are.

    Attributes:
        which: indices of the offered requests that come again, shape (arrivals,).
        arrival_s: when they come, sorted, the present being second 0; shape (arrivals,).
        output_tokens: lengths of their answers, shape (arrivals,).
        whole_tokens: of the requests inside: their whole answers, shape (inside,).
        weights: what each request counts for, those inside first, 0 for nothing; shape
            (inside + arrivals,).
    """

    which: NDArray[np.int64]
    arrival_s: NDArray[np.float64]
    output_tokens: NDArray[np.int32]
    whole_tokens: NDArray[np.int32]
    weights: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Trial:
    """One future, ready to be served: arrays that every branch gets copies of.

    Attributes:
        rows: which of the requests inside and of the offered ones each is, shape
            (inside + arrivals,).
        work_s: seconds of a full engine that each prompt and each answer takes, shape
            (inside + arrivals, 2).
        arriving_s: of all that arrive, together.
        spare: engine seconds that arrivals leave of each second, shape (1,): as the first branch
            found it, so that all are judged alike; NaN until then.
    """

    state: EngineState
    core: Core
    notes: Notes
    rows: NDArray[np.int64]
    weights: NDArray[np.float64]
    work_s: NDArray[np.float64]
    arriving_s: float
    spare: NDArray[np.float64]


class Forecast(NamedTuple):
    """What would come of a decision.

    Attributes:
        attainment: of what counts and is decided by the end, the share of requests that met all
            targets; 1 where nothing is. Each counts alike, as in attainment that is measured.
        worth: of all that counts, the share by weight that met all targets, is being answered and
            on time so far, or waits and can be served in time; 1 where nothing counts. Without it,
            what is put off beyond the end would have no price, or what is urgent no precedence.
    """

    attainment: float
    worth: float


class Branches:
    """One engine at one moment.

    Args:
        profile: the machine.
        settings: of the engine, the contract in force with them.
        in_force: the decision in force.
        inside: the requests that it holds, running ones first; times before second 0.
        offered: requests that may come.
        served: recent answers (tenant, prompt_tokens, max_tokens, output_tokens), oldest first.
        prefill_s_per_token: as measured there; 0 is unknown.

    Attributes:
        work_s: what trials and branches have taken so far: counted, so that it is the same on any
            machine and in each run, and close to the seconds of a quiet core.
    """

    def __init__(
        self, profile: EngineProfile, settings: EngineSettings, in_force: Decision,
        inside: Sequence[ResidentRequest], offered: Sequence[TraceRequest],
        served: Iterable[tuple[str, int, int, int]] = (), prefill_s_per_token: float = 0.0,
    ) -> None:  # fmt: skip
        settings = settings.under(as_the_trace_says(settings.contract))
        self._profile, self._in_force = profile, in_force
        self._prefill_s_per_token = prefill_s_per_token
        self.work_s = _BUILT_S * (len(inside) + len(offered))
        self._hook = hook = VirtualHook(profile, settings, lambda: 0.0)
        hook.learn_lengths(served)
        self._tried: Trial | None = None  # by the last branch, which has left its arrays
        self._room: tuple[EngineState, Core, Notes]
        # What is promised to a request, and what its prompt contains, holds for every copy of it.
        self._begun = [Begun(one, one.output_tokens + 1) for one in inside]
        self._decodes = np.array([one.decodes for one in self._begun], np.bool_)
        self._source = columns(offered, profile, self._begun)
        state = new_state(profile, self._source)
        notes = hook.begin(state, self._source, None, [*inside, *offered], 0.0)
        hook.give_lanes()
        self._lengths = notes.lengths, notes.histograms
        self._rows = hook.core.requests[: len(self._source)].copy()
        self._known = hook.core
        self._slos = slos_of(self._source.senders, hook.settings)

    def trial(self, drawn: Drawn) -> Trial:
        """This future, with nothing served yet. O(requests)."""
        begun, source = len(self._begun), self._source
        rows = np.concatenate([np.arange(begun), begun + drawn.which])
        workload = Workload(
            np.concatenate([source.arrival_s[:begun], drawn.arrival_s]), source.prompt_tokens[rows],
            np.concatenate([drawn.whole_tokens, drawn.output_tokens]), source.max_tokens[rows],
            source.cached_tokens[rows], source.sender[rows], source.senders, begun=begun,
        )  # fmt: skip
        if source.contents is not None:
            contents = gather(
                source.contents, rows, workload.prompt_tokens, workload.output_tokens,
                self._profile.block_size,
            )  # fmt: skip
            workload = replace(workload, contents=contents)
        state = new_state(self._profile, workload)
        counts = drawn.weights > 0.0
        state.progress["awaited"] = counts & state.progress["fits"]
        state.engine["awaits"], state.engine["awaited"] = 1, state.progress["awaited"].sum()
        known = {name: getattr(self._known, name).copy() for name in _KNOWN}
        core = new_core(len(rows), 0)._replace(requests=np.take(self._rows, rows), **known)
        core.requests["arrival_s"][begun:] = drawn.arrival_s
        promise(state.gaps, self._slos, workload.sender)
        notes = new_notes(_copied(self._lengths), len(rows), len(state.running))
        runs = begun_rows(state, self._begun)
        self._hook.enforce_over(core, self._in_force)
        put_back_hooked(state, core, notes, runs, self._decodes, self._prefill_s_per_token)
        self.work_s += _FUTURE_S + _DRAWN_S * len(rows)
        work_s = self._work_s(workload)
        arriving_s, spare = float(work_s[begun:].sum()), np.full(1, math.nan)
        return Trial(state, core, notes, rows, drawn.weights, work_s, arriving_s, spare)

    def _work_s(self, workload: Workload) -> NDArray[np.float64]:
        """Of each request, as `Trial.work_s`."""
        profile = self._profile
        prompt, cached, output = (
            np.asarray(tokens, np.float64)
            for tokens in (workload.prompt_tokens, workload.cached_tokens, workload.output_tokens)
        )
        tokens = float((prompt + output).mean()) if len(prompt) else 0.0
        batch = full_batch(
            profile.max_active_requests, profile.kv_blocks * profile.block_size, tokens
        )
        return np.column_stack(profile.cost.request_s(prompt, cached, output, batch))

    def _branch(self, trial: Trial) -> tuple[EngineState, Core, Notes]:
        """Copies of a trial's arrays, in the place of those of the last branch of the same trial.

        Memory that the process has already costs a tenth of memory that is new to it.
        """
        whole = trial.state, trial.core, trial.notes
        if self._tried is trial:
            _copy(self._room, whole)
        else:
            self._tried, self._room = trial, _copied(whole)
        return self._room

    def forecast(
        self, trial: Trial, policy: str, params: dict[str, float], limits: Limits, until_s: float
    ) -> Forecast:
        """What comes of it by `until_s`, if this comes into force now.

        Raises:
            ValueError: the policy or its parameters do not exist.
        """
        return self.forecast_groups(trial, policy, params, limits, until_s, [trial.weights])[0]

    def forecast_groups(
        self, trial: Trial, policy: str, params: dict[str, float], limits: Limits, until_s: float,
        groups: Iterable[NDArray[np.float64]],
    ) -> list[Forecast]:  # fmt: skip
        """The same for groups of requests, which are served together.

        Args:
            trial: the future.
            policy: the order that comes into force.
            params: of the policy.
            limits: that come into force with it.
            until_s: the end.
            groups: what each request counts for in each group, as `Trial.weights`.

        Raises:
            ValueError: the policy or its parameters do not exist.
        """
        state, core, notes = self._branch(trial)
        decision = replace(
            self._in_force, policy=policy, params=complete_params(policy, params),
            limits=clamp(limits, self._hook.envelope)[0],
        )  # fmt: skip
        self._hook.enforce_over(core, decision)
        while run_hooked(state, core, notes, until_s, math.inf, math.inf, _SLICE_STEPS) == PAUSED:
            pass
        engine, limits = state.engine[0], decision.limits
        running_s = _RUNNING_S + sum(s for name, s in _SORTED_S.items() if getattr(limits, name))
        self.work_s += _BRANCH_S + _REQUEST_S * len(trial.weights)
        self.work_s += float(_STEP_S * engine["steps"] + running_s * engine["looked_at"])
        before, work_s, arriving_s = trial.state.progress, trial.work_s, trial.arriving_s
        return [
            Forecast(*_judge(before, state, core, weights, work_s, arriving_s, trial.spare))
            for weights in groups
        ]


def warm_up() -> None:
    """Compile what a branch needs, or load it from disk, so that no question waits for it."""
    profile = EngineProfile("warm", "", CostCoefficients(1e-3, 1e-6, 1e-6), 1, 16, 16)
    decision = Decision("", 0, 0.0, "fcfs", {}, Limits(1, 16))
    inside = [ResidentRequest("w", 0.0, "t", "batch", SLO(), 1, 1)]
    branches = Branches(profile, EngineSettings(), decision, inside, [TraceRequest(0.0, 1, 1)])
    one = np.ones(1, np.int32)
    trial = branches.trial(Drawn(np.zeros(1, np.int64), np.zeros(1), one, one, np.ones(2)))
    branches.forecast(trial, "fcfs", {}, decision.limits, 1.0)


def _copied(arrays: Any) -> Any:
    """A tuple of arrays, or of such tuples, with arrays of its own."""
    if isinstance(arrays, np.ndarray):
        return _unnamed(arrays).copy().view(arrays.dtype)
    parts = [_copied(each) for each in arrays]
    return type(arrays)(*parts) if hasattr(arrays, "_fields") else tuple(parts)


def _copy(into: Any, arrays: Any) -> None:
    """The same, into arrays of the same shapes."""
    if isinstance(arrays, np.ndarray):
        _unnamed(into)[...] = _unnamed(arrays)
        return
    for each, source in zip(into, arrays, strict=True):
        _copy(each, source)


def _unnamed(array: NDArray[Any]) -> NDArray[Any]:
    """The same memory without names of fields: numpy copies it ten times faster."""
    return array.view(f"V{array.dtype.itemsize}") if array.dtype.names else array


@compiled_in_place
def _judge(
    before: np.ndarray, state: EngineState, core: Core, weights: np.ndarray, work_s: np.ndarray,
    arriving_s: float, spare: np.ndarray,
) -> tuple[float, float]:  # fmt: skip
    """See Forecast. Those that wait are served by deadline, as fast as the engine can spare time.

    What prices say an engine can do is not what it can do: a second of a busy engine that did more
    is worth more.
    """
    met = decided = worth = offered = done_s = 0.0
    waiting, count, now_s = core.picked[0], 0, state.engine[0].now_s
    for row in range(len(weights)):
        one, promised = state.progress[row], core.requests[row]
        done_s += _done_s(one, work_s[row]) - _done_s(before[row], work_s[row])
        offered += weights[row]
        due_s = promised.arrival_s + min(promised.ttft_s, promised.e2e_s)
        if one.state != REJECTED and np.isnan(one.first_token_s) and now_s <= due_s:
            if one.state != COMING:
                core.ranks[row, 0], core.ranks[row, 1] = due_s, row
                waiting[count] = row
                count += 1
            continue
        counts, on_time = weights[row] > 0.0, _is_on_time(state, core, row)
        worth += weights[row] * on_time
        if one.state in (SERVED, REJECTED) or not on_time:
            met += counts and on_time
            decided += counts
    if np.isnan(spare[0]):
        spare[0] = max(0.0, max(1.0, done_s / now_s) - arriving_s / now_s)
    sort(core.ranks, waiting, count)
    ahead_s = 0.0
    for i in range(count):
        row = waiting[i]
        could_s = spare[0] * (core.ranks[row, 0] - now_s) if spare[0] > 0.0 else 0.0
        ahead_s += work_s[row].sum() - _done_s(state.progress[row], work_s[row])
        worth += weights[row] * (1.0 if could_s >= ahead_s else could_s / ahead_s)
    return met / decided if decided > 0.0 else 1.0, worth / offered if offered > 0.0 else 1.0


@compiled_in_place
def _done_s(one: Any, work_s: np.ndarray) -> float:
    """Of a request's work, what is done."""
    prompt, answer = max(1, one.prompt - one.cached_tokens), max(1, one.end - one.prompt)
    prefilled = max(0, min(one.computed, one.prompt) - one.cached_tokens)
    return float(work_s[0] * prefilled / prompt + work_s[1] * (one.known - one.prompt) / answer)


@compiled_in_place
def _is_on_time(state: EngineState, core: Core, row: int) -> bool:
    """As `accounting.judge`: with every target met, those of an answer under way so far."""
    one, promised, now_s = state.progress[row], core.requests[row], state.engine[0].now_s
    if one.state == REJECTED or np.isnan(one.first_token_s):
        return False
    if (one.first_token_s - promised.arrival_s) * 1000 > promised.ttft_s * 1000:
        return False
    gaps = one.known - one.prompt - 1
    if gaps > 0 and max(0.0, one.last_s - one.first_token_s) / gaps * 1000 > promised.tpot_s * 1000:
        return False
    if not _meets_itl(state.gaps.late[row], max(0, gaps)):
        return False
    end_s = one.last_s if one.state == SERVED else now_s
    return bool((end_s - promised.arrival_s) * 1000 <= promised.e2e_s * 1000)
