"""What would the engine do, a thousand times faster? vLLM's scheduler in virtual time, compiled.

Does step by step what `SimulatedEngine` does, which runs vLLM's own scheduler and is the oracle
of this one's tests. Used by evals and by the twin.
"""

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.contracts import (
    Ack,
    ContractAck,
    ContractChange,
    ContractInForce,
    Decision,
    JournalPage,
    Outcome,
    Parts,
    ResidentPage,
    Snapshot,
    TraceRequest,
)
from serving.contracts.settings import EngineSettings
from serving.engines.gaps import BINS, NEVER, count_gaps, promise
from serving.engines.offered import Workload, as_the_trace_says, columns, slos_of
from serving.engines.profile import EngineProfile
from serving.engines.protocol import EngineUnavailable
from serving.engines.put_back import put_back
from serving.engines.resumed import Begun
from serving.engines.served import Served
from serving.engines.step_state import EngineState, new_state
from serving.engines.tickers import Ticker, Tickers
from serving.engines.virtual_hook import VirtualHook
from serving.engines.virtual_steps import DRAINED, LEFT, PAUSED, STUCK, TICK, UNTIL, run_stock

_SLICE_STEPS = 10_000  # about 30 ms: then progress is told, and Ctrl-C is heard
_LOG_STEPS = 64  # full ones


class _Clock:
    """Virtual time, which the hook reads too.

    Were it the engine's own, hook and engine would hold each other, and keep megabytes for each run
    until Python looks for circles.
    """

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class CompiledEngine:
    """An engine in virtual time; one workload per instance.

    It starts empty, or with `resume` from the requests that another engine holds.

    Args:
        profile: the machine to imitate.
        settings: as the live hook reads them at start-up.
        stock: vLLM's own scheduling, without the hook.
        long_prefill_threshold: as vLLM's `--long-prefill-token-threshold`, for stock; 0 is none.
        max_num_queued_tokens: as vLLM's option of that name, for stock; 0 is none.
        by_priority: vLLM's `--scheduling-policy priority`, for stock. Of two requests of one
            priority and moment vLLM takes the lower name, this engine the one offered first.

    Attributes:
        recomputed_tokens: computed tokens that preemptions threw away.
        gaps_of_s: gaps between tokens of requests that arrive in this time are counted.
        gap_counts: these, in the bins of `gaps`.
    """

    def __init__(
        self, profile: EngineProfile, settings: EngineSettings, *, stock: bool = False,
        long_prefill_threshold: int = 0, max_num_queued_tokens: int = 0, by_priority: bool = False,
    ) -> None:  # fmt: skip
        self.profile = profile
        self.settings = settings.under(as_the_trace_says(settings.contract))
        self.recomputed_tokens = 0
        self.gaps_of_s, self.gap_counts = NEVER, np.zeros(BINS, np.int64)
        self._threshold, self._most_queued = long_prefill_threshold, max_num_queued_tokens
        self._by_priority = by_priority
        self._clock = _Clock()
        self._begun: Sequence[Begun] | None = None  # until `resume`
        self._prefill_s_per_token = 0.0
        self._hook = None if stock else VirtualHook(profile, self.settings, self._clock)
        self._served: Served | None = None
        self._contracts: list[tuple[int, EngineSettings]] = []
        self._serve_until: Callable[[float], int] | None = None  # while it runs

    def now(self) -> float:
        """Virtual seconds since the workload began."""
        return self._clock()

    # -- the Engine protocol: of an engine with the hook ------------------------------------

    @property
    def hook(self) -> VirtualHook:
        """The hook; an error on stock vLLM, which has none."""
        if self._hook is None:
            raise EngineUnavailable("stock vLLM takes no decisions: build it with stock=False")
        return self._hook

    def snapshot(self) -> Snapshot:
        """The state between two steps."""
        return self.hook.snapshot()

    def apply(self, decision: Decision) -> Ack:
        """Put a decision in force."""
        return self.hook.apply(decision)

    def renew(self, controller_id: str, ttl_s: float, parts: Parts | None = None) -> Ack:
        """Extend a lease."""
        return self.hook.renew(controller_id, ttl_s, parts)

    def release(self, controller_id: str) -> Ack:
        """Give a lease back."""
        return self.hook.release(controller_id)

    def stop(self, by: str, reason: str = "") -> Ack:
        """The kill switch."""
        return self.hook.stop(by, reason)

    def start(self, by: str) -> Ack:
        """Let decisions in again."""
        del by  # only a log would name it
        return self.hook.start()

    def contract(self) -> ContractInForce:
        """The contract in force."""
        return self.hook.in_force

    def apply_contract(self, change: ContractChange) -> ContractAck:
        """Put a contract in force."""
        change = replace(change, contract=as_the_trace_says(change.contract))
        ack = self.hook.apply_contract(change)
        if self.settings is not self.hook.settings:
            self.settings = self.hook.settings
            self._contracts.append((self.hook.arrived, self.settings))
        return ack

    def journal(self, cursor: int, limit: int = 5000) -> JournalPage:
        """Arrivals and outcomes from `cursor` on."""
        return self.hook.journal(cursor, limit)

    def inside(self, limit: int = 5000) -> ResidentPage:
        """The requests inside, between two steps."""
        return self.hook.inside(limit)

    # -- starting from another engine's state ------------------------------------------------

    def learn_lengths(self, served: Iterable[tuple[str, int, int, int]]) -> None:
        """Let the hook's length model learn from answers that another engine has served.

        Args:
            served: (tenant, prompt_tokens, max_tokens, output_tokens), oldest first. A
                `TraceRequest` is found in the same histogram if it has its own `max_tokens`.
        """
        if self._hook is not None:
            self._hook.learn_lengths(served)

    def tell_lengths(self) -> None:
        """Let the hook know from its arrival on how long each answer will be; before `run`."""
        self.hook.told_lengths = True

    def resume(self, begun: Sequence[Begun], prefill_s_per_token: float = 0.0) -> None:
        """Hold these requests at second 0, as the engine did that they come from.

        Before `run`, and after the decision that is to be in force.

        Args:
            begun: running ones first, as in an `ResidentPage`; request i is called `b{i}`.
            prefill_s_per_token: as the page says; 0 where nobody has measured it.

        Raises:
            ValueError: the engine holds requests, or has served some.
        """
        if self._begun is not None or self._served is not None:
            raise ValueError("resume() comes once and before run(): take a new CompiledEngine")
        self._begun, self._prefill_s_per_token = begun, prefill_s_per_token

    @property
    def resumed_outcomes(self) -> list[Outcome]:
        """After `run`: one outcome for each request that `resume` was given, in order."""
        return [] if self._served is None else self._served.resumed_outcomes(self._begun or ())

    def run(
        self,
        requests: Sequence[TraceRequest],
        tickers: Sequence[Ticker] = (),
        until_s: float | None = None,
        on_progress: Callable[[int], None] | None = None,
        until_left: Collection[str] = (),
        on_steps: Callable[[NDArray[Any]], None] | None = None,
    ) -> list[Outcome]:
        """Serve `requests` (sorted by arrival) and return one outcome for each, in order.

        Args:
            requests: the workload; request i is called `r{i}`. One that does not say how
                long an answer it allows allows the workload's longest.
            tickers: (period_s, callback) pairs, called on virtual time between steps.
            until_s: stop there; requests still inside are `unfinished` and missed.
            on_progress: told the number of finished requests now and then.
            until_left: stop as soon as these requests, by name, have left.
            on_steps: told what was done since it was told last, as `step_state.STEP`; rows are
                those of the workload, after the resumed requests.

        Raises:
            RuntimeError: a request that needs more KV blocks than there are would wait for ever.
        """
        workload, settings = columns(requests, self.profile, self._begun or ()), self.settings
        served = self.run_columns(
            workload, tickers, until_s, on_progress, until_left, on_steps, requests
        )
        return served.outcomes(requests, settings)

    def serve_on(self, seconds: float) -> None:
        """Serve for so long within a ticker, as an engine does while its controller thinks.

        Outside of a run no time passes.
        """
        if self._serve_until is not None:
            until_s = self.now() + seconds
            while self._serve_until(until_s) == PAUSED:
                pass

    def run_columns(
        self,
        workload: Workload,
        tickers: Sequence[Ticker] = (),
        until_s: float | None = None,
        on_progress: Callable[[int], None] | None = None,
        until_left: Collection[str] = (),
        on_steps: Callable[[NDArray[Any]], None] | None = None,
        requests: Sequence[TraceRequest] = (),
    ) -> Served:
        """As `run`, from columns to columns: without a Python object for each request.

        The workload comes from `columns`, with the resumed requests, if any, in front. The hook
        also has to know the `requests` themselves.
        """
        log = 0 if on_steps is None else 2 * _LOG_STEPS * self.profile.max_active_requests
        state = new_state(self.profile, workload, log)
        state.engine["long_prefill_threshold"] = self._threshold
        state.engine["most_queued_tokens"] = self._most_queued
        state.engine["by_priority"] = self._by_priority
        hook, serve = self._hook, run_stock
        self.gap_counts = count_gaps(state.gaps, workload, self.gaps_of_s)
        if hook is None:
            put_back(state, self._begun or ())
            promise(state.gaps, slos_of(workload.senders, self.settings), workload.sender)
        else:
            serve = hook.run
            hook.begin(state, workload, self._begun, requests, self._prefill_s_per_token)
        if until_left:
            _await(state, until_left, workload.begun)
        ticking, why = Tickers(tickers), TICK
        end_s = math.inf if until_s is None else until_s

        def serve_until(tick_s: float) -> int:
            why = serve(state, end_s, tick_s, _SLICE_STEPS)
            self._clock.now_s = float(state.engine["now_s"][0])
            return why

        self._serve_until = serve_until
        while why not in (DRAINED, UNTIL, LEFT):
            why = serve_until(min(ticking.due_s, default=math.inf))
            if on_steps is not None:
                on_steps(state.log[: state.engine["logged"][0]].copy())
                state.engine["logged"] = 0
            if on_progress is not None:
                on_progress(int(state.engine["left"][0]))
            if why == TICK:
                ticking.call_due(self.now())
            elif why == STUCK:
                raise RuntimeError(_stuck(state, workload.begun))
        self._serve_until = None
        self.recomputed_tokens = int(state.engine["recomputed_tokens"][0])
        rows = None if hook is None else hook.core.requests
        self._served = Served.of(state, workload, rows, self._contracts)
        return self._served


def _await(state: EngineState, names: Collection[str], begun: int) -> None:
    wanted = {int(name[1:]) + (0 if name[0] == "b" else begun) for name in names}
    rows = [row for row in sorted(wanted) if row >= begun or state.progress["fits"][row]]
    state.progress["awaited"][rows] = 1
    state.engine["awaits"], state.engine["awaited"] = 1, len(rows)


def _stuck(state: EngineState, begun: int) -> str:
    engine, pool = state.engine, state.kv.pool
    row = int(state.waiting[engine["waiting_first"][0]])
    name = f"b{row}" if row < begun else f"r{row - begun}"
    return (
        f"{name} has {state.progress['known'][row]} tokens, but the KV cache holds at most "
        f"{pool['free'][0] * pool['block_size'][0]}: it would wait for ever. Take a profile with "
        "more kv_blocks, or say until_s"
    )
