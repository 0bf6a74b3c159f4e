"""What time and memory does the hook take, against vLLM's scheduler? `hmas bench scheduler`.

Three schedulers in one process: stock, the hook, and stock once more as the control, whose
ratio shows the machine's noise. They take turns, a dozen steps each: in a server, too, one
scheduler has the core's caches to itself. The hook goes first, and the others admit whom it
has admitted, so that all three do the same work. Rounds go through all policies, so that
drifts of the machine hit all of them.

Rules change the work: steps get smaller, and a smaller step costs less. So with rules every policy
is timed twice. `planned`: all targets are far away. The rules look at every request and plan each
step, but none binds, so both sides schedule the same requests and tokens (`work` is 1); this is
what the rules cost. `binding`: targets as they are. Compare `per_request_ratio` there, the time
per request and step, and not `ratio`.
"""

import gc
import tracemalloc
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from time import thread_time_ns
from typing import Any

from hmas_agents.config import ControlConfig
from serving.contracts import Decision, Limits
from serving.contracts.rules import with_rules
from serving.contracts.settings import EngineSettings
from serving.engines.stepped import SETTINGS, Arm, Clock, Draw, freeze_heap

STOCK, HOOK, CONTROL = "stock", "hook", "control"
_ARMS = (HOOK, STOCK, CONTROL)  # in the order of their turns
_TURN = 12  # steps
WAITING = (100, 1_000, 10_000, 100_000)
_ABORT_EVERY, _POPS = 8, 40
START_RULES = ControlConfig().start_rules
NO_RULES, PLANNED, BINDING = "", "planned", "binding"
# A minute becomes a month, and nobody is in a hurry.
_FAR = SETTINGS.model_copy(update={"slo_scale": 50_000.0})
Result = dict[str, Any]
Samples = dict[str, list[int]]
_JOURNAL_SIZE = 100  # the journal is bounded, so its part is not one of waiting requests


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What to time. `rules`: every policy also with the rules that a controller starts with."""

    policies: tuple[str, ...]
    waiting: tuple[int, ...] = WAITING
    running: int = 256
    steps: int = 180
    rounds: int = 3
    rules: bool = False
    seed: int = 0


def run_bench(
    options: BenchOptions, on_progress: Callable[[str, int, int], None] = lambda *_: None
) -> list[Result]:
    """One result per queue length, policy and case; `on_progress` gets title, done, total."""
    results = []
    for waiting in options.waiting:
        kinds = (NO_RULES, BINDING) if options.rules else (NO_RULES,)
        results += _measure(options, waiting, SETTINGS, kinds, on_progress)
        if options.rules:
            results += _measure(options, waiting, _FAR, (PLANNED,), on_progress)
    places = {policy: place for place, policy in enumerate(options.policies)}
    return sorted(results, key=lambda one: (one["waiting"], places[one["policy"]], one["case"]))


class Field:
    """Three schedulers with `waiting` requests each, and the traffic that they share."""

    def __init__(
        self, waiting: int, running: int, seed: int, on_progress: Callable[[int], None],
        settings: EngineSettings = SETTINGS,
    ) -> None:  # fmt: skip
        self.clock, self.draw = Clock(), Draw(seed)
        self.arms = {
            name: Arm(self.clock, hooked=name == HOOK, running=running, settings=settings)
            for name in _ARMS
        }
        self.steps = self.epoch = 0
        for i in range(waiting + running):
            drawn = self.draw.request(self.draw.past())
            for arm in self.arms.values():
                arm.add(drawn.build())
            if i % 500 == 0:
                on_progress(i)
        while not all(arm.full for arm in self.arms.values()):
            for arm in self.arms.values():
                arm.schedule()
                arm.update(ends=False)
        freeze_heap()

    def apply(self, policy: str, rules: Sequence[str] = ()) -> float:
        """Put a policy in force; milliseconds that it took."""
        hook = self.arms[HOOK].scheduler
        limits = Limits(hook.envelope.max_active_requests, hook.envelope.token_budget)
        self.epoch += 1
        decision = Decision(
            "bench", self.epoch, 86_000.0, policy, {}, with_rules(limits, rules), "timed"
        )
        start = thread_time_ns()
        ack = hook.hmas_apply(decision)
        taken = thread_time_ns() - start
        if not ack.accepted:
            raise RuntimeError(f"the hook refused policy {policy!r}: {ack.reason}")
        return taken / 1e6

    def turns(self, steps: int, samples: dict[str, Samples]) -> None:
        """So many steps of each arm, each with an arrival and an end, now and then an abort."""
        drawn = [self.draw.request(self.clock()) for _ in range(steps)]
        refills = [
            None if i % _ABORT_EVERY else self.draw.request(self.draw.past())
            for i in range(self.steps, self.steps + steps)
        ]
        admitted: list[str] = []
        for name in _ARMS:
            arm, sample = self.arms[name], samples[name]
            if name != HOOK:
                arm.follow(admitted)
            for new, refill in zip(drawn, refills, strict=True):
                sample["add"].append(arm.add(new.build()))
                if refill is not None:
                    sample["abort"].append(arm.abort_one())
                    arm.add(refill.build())
                scheduled = arm.schedule()
                updated = arm.update(ends=True)
                sample["schedule"].append(scheduled)
                sample["step"].append(scheduled + updated)
                sample["requests"].append(arm.scheduled[0])
                sample["tokens"].append(arm.scheduled[1])
                if name == HOOK:
                    admitted += arm.admitted
                    self.clock.now_s += arm.step_s
        self.steps += steps

    def pop(self, samples: dict[str, Samples]) -> None:
        """Time pops, the arms taking turns."""
        for i in range(_POPS):
            for name in _ARMS[i % 3 :] + _ARMS[: i % 3]:
                samples[name]["pop"].append(self.arms[name].pop_and_put_back())


def _measure(
    options: BenchOptions, waiting: int, settings: EngineSettings, kinds: Sequence[str],
    on_progress: Callable[[str, int, int], None],
) -> list[Result]:  # fmt: skip
    """All measurements at one queue length."""
    cases = [(policy, kind) for policy in options.policies for kind in kinds]
    title = f"{waiting:,} waiting"
    build = waiting + options.running
    field = Field(
        waiting, options.running, options.seed,
        lambda done: on_progress(f"{title}: building", done, build), settings,
    )  # fmt: skip
    rounds: dict[int, list[dict[str, Samples]]] = defaultdict(list)
    switches: dict[int, list[float]] = defaultdict(list)
    total = options.rounds * len(cases)
    for turn in range(options.rounds):
        for i, (policy, kind) in enumerate(cases):
            on_progress(f"{title}: {policy}", turn * len(cases) + i, total)
            samples: dict[str, Samples] = defaultdict(lambda: defaultdict(list))
            switches[i].append(field.apply(policy, START_RULES if kind else ()))
            for done in range(0, options.steps, _TURN):
                field.turns(min(_TURN, options.steps - done), samples)
            field.pop(samples)
            rounds[i].append(samples)
    faults = field.arms[HOOK].scheduler.hmas_snapshot().policy_errors
    if faults:
        raise RuntimeError(
            f"the hook counted {faults} faults: {field.arms[HOOK].scheduler.last_fault}"
        )
    return [
        {
            "policy": policy,
            "waiting": waiting,
            "running": options.running,
            "case": kind,
            "rules": list(START_RULES if kind else ()),
        }
        | summarise(rounds[i], switches[i])
        for i, (policy, kind) in enumerate(cases)
    ]


def summarise(rounds: Sequence[dict[str, Samples]], switches_ms: Sequence[float]) -> Result:
    """Medians over all rounds, in microseconds, and ratios.

    A ratio is the median over turns of the hook's time by stock's, each the lower quartile of the
    turn's steps: what else runs on the machine takes the caches away now and then. `ratio`
    compares `schedule` alone, `step_ratio` with `update_from_output`; `control` is the ratio
    of stock to stock; `ratio_low` and `ratio_high` are the extremes of the rounds. `mean_ratio`
    is of all time in `schedule`, so it has what happens in few steps, as a pass of triage;
    `work` is of requests in steps, and `per_request_ratio` the first by the second.
    """

    def middle(arm: str, kind: str) -> float:
        return median(v for samples in rounds for v in samples[arm][kind]) / 1000

    def low(samples: Samples, kind: str, begin: int) -> int:
        turn = sorted(samples[kind][begin : begin + _TURN])
        return turn[len(turn) // 4]

    def ratio(
        kind: str, arm: str = HOOK, chosen: Sequence[dict[str, Samples]] = rounds,
        turns: slice = slice(None),
    ) -> float:  # fmt: skip
        found = [
            low(s[arm], kind, begin) / low(s[STOCK], kind, begin)
            for s in chosen
            for begin in range(0, len(s[arm][kind]), _TURN)[turns]
        ]
        return round(median(found), 4)

    def total(arm: str, kind: str) -> int:
        return sum(sum(samples[arm][kind]) for samples in rounds)

    work, mean_ratio = (total(HOOK, kind) / total(STOCK, kind) for kind in ("requests", "schedule"))
    by_round = [ratio("schedule", chosen=[samples]) for samples in rounds]
    return {
        "ratio": ratio("schedule"),
        "ratio_low": min(by_round),
        "ratio_high": max(by_round),
        "control": ratio("schedule", arm=CONTROL),
        "mean_ratio": round(mean_ratio, 4),
        "work": round(work, 4),
        "same_work": all(
            s[HOOK][kind] == s[STOCK][kind] for s in rounds for kind in ("requests", "tokens")
        ),
        "per_request_ratio": round(mean_ratio / work, 4),
        "step_ratio": ratio("step"),
        "hook_us": round(middle(HOOK, "schedule"), 1),
        "stock_us": round(middle(STOCK, "schedule"), 1),
        **{
            f"{kind}_{arm}_us": round(middle(arm, kind), 2)
            for kind in ("add", "abort", "pop")
            for arm in (HOOK, STOCK)
        },
        "switch_ms": round(median(switches_ms), 2),
        "after_switch_ratio": ratio("schedule", turns=slice(1)),
        "samples": sum(len(s[HOOK]["schedule"]) for s in rounds),
    }


def memory_per_request(waiting: int = 4_000, seed: int = 0) -> dict[str, Any]:
    """Bytes per waiting request: vLLM's own object, its queue entry, and what the hook adds.

    The hook's part is everything that `add_request` leaves behind beyond stock's: view,
    track, queue entry, heap items. Prompts are lognormal with a median of 148 tokens.
    """
    draw = Draw(seed)
    drawn = [draw.request(draw.past()) for _ in range(waiting)]
    settings = SETTINGS.model_copy(update={"journal_size": _JOURNAL_SIZE})
    arms = {
        name: Arm(Clock(), hooked=name == "hook", running=1, settings=settings)
        for name in ("stock", "hook")
    }
    grown: dict[str, float] = {}
    tracemalloc.start()
    try:
        before = _traced()
        requests = {name: [one.build() for one in drawn] for name in arms}
        own = (_traced() - before) / (2 * waiting)
        for name, arm in arms.items():
            grown[name] = _growth(arm, requests[name]) / waiting
    finally:
        tracemalloc.stop()
    return {
        "waiting": waiting,
        "request_bytes": round(own),
        "stock_bytes": round(grown["stock"]),
        "hook_added_bytes": round(grown["hook"] - grown["stock"]),
        "hook_added_share": round((grown["hook"] - grown["stock"]) / (own + grown["stock"]), 3),
    }


def _growth(arm: Arm, requests: Sequence[Any]) -> int:
    before = _traced()
    for request in requests:
        arm.scheduler.add_request(request)
    return _traced() - before


def _traced() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]
