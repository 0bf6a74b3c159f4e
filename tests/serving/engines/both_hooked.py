"""Do the compiled engine and vLLM's scheduler with the real hook do the same, whatever is decided?

A `HookedStory` is all that can be seen of a run: each step, one outcome per request, and after
each act of the controller its answer, the snapshot, the new pages of the journal and the requests
inside.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from serving.contracts import (
    Contract,
    ContractChange,
    Decision,
    JournalPage,
    Limits,
    Outcome,
    Parts,
    ResidentPage,
    Snapshot,
    TraceRequest,
)
from serving.contracts.settings import EngineSettings
from serving.engines.compiled import CompiledEngine
from serving.engines.profile import EngineProfile
from serving.engines.resumed import Begun
from serving.engines.simulated import SimulatedEngine
from tests.serving.engines.both_engines import Step, steps_of

Engine = SimulatedEngine | CompiledEngine
Served = tuple[str, int, int, int]
# Numbers of prompt blocks: one engine makes them of tokens, the other has them from the trace.
_NOT_COMPARED = {"prefix"}


@dataclass(frozen=True, slots=True)
class Decide:
    """A decision of the controller `by`."""

    policy: str
    params: Mapping[str, float]
    limits: Limits
    ttl_s: float = 60.0
    by: str = "me"

    def __call__(self, engine: Engine) -> object:
        epoch = engine.snapshot().epoch + 1
        return engine.apply(
            Decision(self.by, epoch, self.ttl_s, self.policy, dict(self.params), self.limits)
        )


@dataclass(frozen=True, slots=True)
class Promise:
    """Another contract."""

    contract: Contract

    def __call__(self, engine: Engine) -> object:
        epoch = engine.contract().epoch + 1
        return engine.apply_contract(ContractChange(self.contract, epoch, "me"))


@dataclass(frozen=True, slots=True)
class Plain:
    """An act without a choice: `renew`, `release`, `stop`, `start` or `look`."""

    name: str

    def __call__(self, engine: Engine) -> object:
        acts: dict[str, Callable[[], object]] = {
            "renew": lambda: engine.renew("me", 0.4),
            "release": lambda: engine.release("me"),
            "stop": lambda: engine.stop("person", "a test"),
            "start": lambda: engine.start("person"),
            "look": engine.contract,
        }
        return acts[self.name]()


@dataclass(frozen=True, slots=True)
class Divide:
    """A renewal that says which part of the tenants' terms to give."""

    parts: Parts

    def __call__(self, engine: Engine) -> object:
        return engine.renew("me", 0.4, self.parts)


Act = Decide | Promise | Divide | Plain


@dataclass(frozen=True, slots=True)
class HookedCase:
    """What both engines run.

    Attributes:
        first: acts before the run.
        acts: one at each tick, while there are some.
        tick_s: period of the ticks.
        page: most entries of one page of the journal.
        served: answers that the length model has seen before.
        begun, prefill_s_per_token: what the engines resume, if anything.
    """

    profile: EngineProfile
    requests: tuple[TraceRequest, ...]
    settings: EngineSettings = EngineSettings()  # noqa: RUF009  frozen
    first: tuple[Act, ...] = ()
    acts: tuple[Act, ...] = ()
    tick_s: float = 1.0
    until_s: float | None = None
    page: int = 5000
    served: tuple[Served, ...] = ()
    begun: tuple[Begun, ...] | None = None
    prefill_s_per_token: float = 0.0


@dataclass(frozen=True, slots=True)
class Look:
    """What a controller sees after an act, and what it was answered."""

    answer: object
    snapshot: Snapshot
    page: JournalPage
    inside: ResidentPage


@dataclass(frozen=True, slots=True)
class HookedStory:
    """What came of a case; a look after each act and at the end."""

    steps: list[Step]
    outcomes: list[Outcome]
    seen: list[Look]
    recomputed_tokens: int
    gaps: list[int]

    @property
    def preemptions(self) -> int:
        """Requests preempted in all steps."""
        return sum(len(preempted) for *_, preempted in self.steps)

    @property
    def rules(self) -> dict[str, int]:
        """What rules and guarantees did."""
        return self.seen[-1].snapshot.rules


def by_the_hook(case: HookedCase) -> HookedStory:
    """Run vLLM's own scheduler with the hook inside."""
    engine, steps = SimulatedEngine(case.profile, case.settings), list[Step]()

    def seen(output: Any) -> None:
        preempted = tuple(sorted(output.preempted_req_ids or ()))
        if output.num_scheduled_tokens or preempted:
            steps.append((engine.now(), tuple(output.num_scheduled_tokens.items()), preempted))

    return _told(engine, case, steps, on_step=seen)


def by_the_core(case: HookedCase, make: type[CompiledEngine] = CompiledEngine) -> HookedStory:
    """Run the compiled engine."""
    engine, steps = make(case.profile, case.settings), list[Step]()
    begun = len(case.begun or ())
    return _told(engine, case, steps, on_steps=lambda log: steps.extend(steps_of(log, begun)))


def _told(engine: Engine, case: HookedCase, steps: list[Step], **listen: Any) -> HookedStory:
    cursor, acts, seen = 0, iter(case.acts), list[Look]()

    def look(answer: object) -> None:
        nonlocal cursor
        page = engine.journal(cursor, case.page)
        cursor = page.cursor
        seen.append(Look(answer, engine.snapshot(), page, engine.inside(case.page)))

    def tick() -> None:
        act = next(acts, None)
        look(None if act is None else act(engine))

    engine.learn_lengths(case.served)
    engine.gaps_of_s = 0.2, 3.0
    answers = [act(engine) for act in case.first]
    if case.begun is not None:
        engine.resume(case.begun, case.prefill_s_per_token)
    outcomes = engine.run(case.requests, [(case.tick_s, tick)], case.until_s, **listen)
    look(answers)
    look(engine.now())  # what one page did not hold
    together = [*engine.resumed_outcomes, *outcomes]
    gaps = engine.gap_counts.tolist()
    return HookedStory(steps, together, seen, engine.recomputed_tokens, gaps)


def difference(expected: HookedStory, found: HookedStory) -> str:
    """The first thing in which two stories differ; empty if in none."""
    for i, (a, b) in enumerate(zip(expected.steps, found.steps, strict=False)):
        if a != b:
            return f"step {i}: {a} became {b}"
    if len(expected.steps) != len(found.steps):
        return f"{len(expected.steps)} steps became {len(found.steps)}"
    return unlike(expected, found)


def unlike(one: Any, other: Any, where: str = "") -> str:
    """The first place in which two values differ, and how; empty if in none."""
    if dataclasses.is_dataclass(one) and type(one) is type(other):
        names = [field.name for field in dataclasses.fields(one)]
        parts = [(f".{name}", getattr(one, name), getattr(other, name)) for name in names]
    elif isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        parts = [(f"[{key!r}]", one[key], other[key]) for key in one]
    elif isinstance(one, list | tuple) and type(one) is type(other) and len(one) == len(other):
        parts = [(f"[{i}]", a, b) for i, (a, b) in enumerate(zip(one, other, strict=True))]
    elif one == other or (one != one and other != other):  # NaN is like NaN
        return ""
    else:
        return f"{where}: {one!r} became {other!r}"
    for name, a, b in parts:
        if name[1:] not in _NOT_COMPARED and (found := unlike(a, b, where + name)):
            return found
    return ""


def with_owners(requests: Sequence[TraceRequest], tenants: int) -> tuple[TraceRequest, ...]:
    """The same requests from so many tenants, of all classes and priorities."""
    classes = ("interactive", "conversational", "document", "batch", "best_effort", "quick")
    return tuple(
        replace(
            one, tenant=f"t{(i * i + one.prompt_tokens) % tenants}", priority=i % 3,
            slo_class=classes[(i + one.prompt_tokens) % len(classes)],
        )
        for i, one in enumerate(requests)
    )  # fmt: skip
