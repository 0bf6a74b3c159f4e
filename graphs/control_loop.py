"""When do the two horizons run? One controller's loop, on any engine's clock.

`short_tick` and `long_tick` are synchronous: a simulated engine calls them on its
virtual clock and the whole loop is deterministic. `run_forever` drives the same
ticks on the wall clock for `hmas run`, the demo and live evals.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from graphs.long_horizon import Cancelled, LongHorizon, build_long_horizon, settle
from graphs.long_timer import LongTimer
from graphs.parts import OnDecision, build_parts
from graphs.short_horizon import RUN_CONFIG, build_short_horizon
from hmas_agents import controller_metrics as metrics
from hmas_agents.config import Config
from hmas_agents.engine_view import show_limits
from hmas_agents.records import DecisionRecord, Horizon
from hmas_agents.situation import Expected
from hmas_agents.telemetry.tracing import Tracing, note_decision, tick
from hmas_agents.twin.process import Forecaster
from serving.contracts import Stopped
from serving.engines.protocol import Engine, EngineUnavailable
from serving.policies import format_policy

logger = logging.getLogger(__name__)

TWIN_START_S = 60.0  # 2 s, or 20 s where the compiled code is not on disk yet
LAST_WORDS_S = 3.0  # how long `close` waits for a cancelled long tick: for the engine's answer


class ControllerConflict(RuntimeError):
    """Another owns the engine, or it is stopped; says who and what to do."""


class ControlLoop:
    """One controller beside one engine. Use as a context manager, or `close` it.

    Args:
        ledger_path: where decisions are kept; None keeps none.
        run_label: name of this run in the ledger.
        controller_id: who holds the lease; unique per controller when live.
        token: of the server, which signs the agents' own requests; empty means HMAS_TOKEN.
        stands_by: wait where another owns the engine or has stopped it, and take over when it is
            free; else that is a ControllerConflict. It looks on meanwhile and decides nothing.
        on_decision: called with each record as it is written.
        on_notice: called with a line when the controller is kept out, and when it takes over.
        forecaster: where the twin computes; None means in a process of its own.
        tracing: where spans of the ticks go; closed with the loop. None traces nothing.

    Raises:
        PromptError, LedgerError: what the configuration names cannot be used.
    """

    def __init__(
        self,
        engine: Engine,
        config: Config,
        ledger_path: Path | None,
        *,
        run_label: str = "",
        controller_id: str = "hmas",
        token: str = "",
        stands_by: bool = False,
        on_decision: OnDecision = lambda _: None,
        on_notice: Callable[[str], None] = logger.warning,
        forecaster: Forecaster | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._engine, self._config, self._tracing = engine, config, tracing

        def decided(record: DecisionRecord) -> None:
            note_decision(record)
            show_limits(record.snapshot_after.get("limits", {}))
            on_decision(record)

        self._parts = build_parts(
            engine,
            config,
            ledger_path,
            run_label=run_label,
            controller_id=controller_id,
            token=token,
            on_decision=decided,
            forecaster=forecaster,
        )
        self._short = build_short_horizon(self._parts)
        self._long = build_long_horizon(self._parts)
        self._timer = LongTimer(config.control)
        self._background: threading.Thread | None = None
        self._crash: Exception | None = None
        self._engine_is_down = False
        self._stands_by, self._notice = stands_by, on_notice
        self._waited_for: str | Stopped = ""
        self._closed = False
        self._ending = threading.Lock()  # of the next two: who closes the ledger?
        self._deciding = self._left_open = False

    def take_charge(self) -> None:
        """Start the twin, wait until it can replay, and put the start policy in force.

        `run_forever` begins without waiting; this is for measured runs.

        Raises:
            ControllerConflict, EngineUnavailable: as `short_tick`.
        """
        if self._parts.twin is not None:
            self._parts.twin.start()
            self._parts.twin.wait_ready(TWIN_START_S)
        self.short_tick()

    def expect(self, expected: Sequence[Expected]) -> None:
        """What the twin shall know of changes of traffic that were announced, from now on."""
        self._parts.watch.expected = tuple(expected)

    def short_tick(self) -> None:
        """Renew the lease, then let the rule agents act; look on only while kept out.

        Raises:
            ControllerConflict: another owns the engine or has stopped it (act mode), and this
                one does not stand by.
            EngineUnavailable: the next tick takes up where this one began.
        """
        parts = self._parts
        had_started = parts.started
        with tick(self._tracing, "short_tick") as traced:
            if had_started:
                parts.session.renew()
            self._short.invoke({}, RUN_CONFIG | traced)
        if parts.kept_out and had_started:  # what comes now is not of our decisions
            settle(parts, self._engine.now(), final=True)
        if parts.kept_out and not self._stands_by:
            raise ControllerConflict(f"{parts.kept_out}: wait for that, or run with --mode advise")
        if parts.kept_out and parts.kept_out_by != self._waited_for:
            self._notice(f"{parts.kept_out}: standing by")
            self._waited_for = parts.kept_out_by
        if parts.started and not had_started and not parts.session.dry_run:
            self._take_over()

    def long_tick(self, trigger: str = "tick", budget_s: float | None = None) -> None:
        """Choose a policy.

        Args:
            trigger: why now: `first`, `tick`, or the alarms that fired.
            budget_s: wall-clock limit of the twin; None lets it finish (deterministic).

        Raises:
            EngineUnavailable: nothing was decided.
        """
        given: LongHorizon = {"trigger": trigger, "budget_s": budget_s}
        with tick(self._tracing, "long_tick") as traced:
            self._long.invoke(given, traced)

    def tick(self) -> None:
        """A short tick and, when one is due, a long one: for engines in virtual time.

        Raises:
            ControllerConflict, EngineUnavailable: as the ticks.
        """
        self.short_tick()
        if not self._parts.kept_out and (trigger := self._due()):
            self._timer.began(self._engine.now())
            self.long_tick(trigger)

    def run_forever(self, stop: threading.Event) -> None:
        """Tick on the wall clock until `stop` is set.

        Short ticks keep their times: one that comes late is skipped, not queued. Long
        ticks run beside them, one at a time, when `LongTimer` says so. An engine that does
        not answer is logged once.

        Raises:
            ControllerConflict: as `short_tick`.
        """
        period_s = self._config.control.short_tick_s
        if self._parts.twin is not None:
            self._parts.twin.start()
        next_short_s = time.monotonic()
        while not stop.is_set():
            ticked = self._timed("short", self.short_tick)
            if ticked and not self._parts.kept_out and (trigger := self._due()):
                self._start_long(trigger)
            if self._crash is not None:
                raise self._crash
            missed = max(0.0, time.monotonic() - next_short_s) // period_s
            if missed:
                metrics.count_skipped("short", int(missed))
            next_short_s += (missed + 1) * period_s
            stop.wait(next_short_s - time.monotonic())

    def close(self) -> None:
        """Give the lease back, drop a choice under way, note what came of the last decisions.

        The ledger closes last, once nothing uses it: where a choice still waits for the engine,
        it closes the ledger when it ends.
        """
        if self._closed:
            return
        self._closed = True
        there = self._last_word(self._parts.session.release)
        if there and self._parts.words is not None:
            self._last_word(self._parts.words.stand_by)
        self._parts.cancel()
        if self._background is not None:
            self._background.join(LAST_WORDS_S)
        if there:
            self._last_word(self._settle_all)
        with self._ending:
            self._left_open = self._deciding
        if not self._left_open:
            self._close_stores()

    def _last_word(self, say: Callable[[], object]) -> bool:
        try:
            say()
        except EngineUnavailable as error:
            logger.warning("the engine did not answer at the end: %s", error)
            return False
        return True

    def _settle_all(self) -> None:
        self._parts.watch.look()
        settle(self._parts, self._engine.now(), final=True)

    def _close_stores(self) -> None:
        self._parts.close()
        if self._tracing is not None:
            self._tracing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take_over(self) -> None:
        """Say what was taken over, and mark what an ended controller left half done."""
        ledger, last = self._parts.ledger, self._parts.last
        half_done = [] if ledger is None else ledger.mark_half_done()
        found = "nothing to recover"
        if half_done:
            ids = ", ".join(str(each) for each in half_done)
            found = f"left half done, and marked so in the ledger: decision {ids}"
        if half_done or self._waited_for:
            goes_on = format_policy(*last) if last else "the start policy"
            self._notice(f"the engine is free: acting from {goes_on}; {found}")
        self._waited_for = ""

    def _due(self) -> str:
        watch = self._parts.watch
        return self._timer.due(self._engine.now(), watch.alarms(), watch.arrivals)

    def _start_long(self, trigger: str) -> None:
        """Start a long tick in the background; one that is under way lets this one pass."""
        if self._background is not None and self._background.is_alive():
            metrics.count_skipped("long")
            self._timer.skipped(self._engine.now())
            return
        self._timer.began(self._engine.now())

        def decide() -> None:
            try:
                self._timed("long", lambda: self.long_tick(trigger, self._config.twin.budget_s))
            except Cancelled:
                pass
            except Exception as error:  # noqa: BLE001  raised by run_forever, in its own thread
                self._crash = error
            with self._ending:
                self._deciding = False
            if self._left_open:
                self._close_stores()

        self._deciding = True
        self._background = threading.Thread(target=decide, name="hmas-long-tick", daemon=True)
        self._background.start()

    def _timed(self, horizon: Horizon, tick: Callable[[], None]) -> bool:
        """One tick, measured; False when the engine did not answer."""
        began_s = time.perf_counter()
        try:
            tick()
        except EngineUnavailable as error:
            if not self._engine_is_down:
                logger.warning("the engine does not answer, trying on: %s", error)
            self._engine_is_down = True
            return False
        took_s = time.perf_counter() - began_s
        metrics.observe_tick(took_s, horizon)
        if horizon == "short" and took_s > self._config.control.ttl_s / 2:
            logger.warning(
                "a short tick took %.1f s, the lease lasts %g s: is this machine overloaded?",
                took_s,
                self._config.control.ttl_s,
            )
        if self._engine_is_down:
            logger.warning("the engine answers again")
        self._engine_is_down = False
        return True
