"""Which requests, machines and workloads do the serving tests use?"""

import math
import random
from dataclasses import dataclass

from serving.contracts import (
    SLO,
    Arrival,
    Contract,
    CostCoefficients,
    Decision,
    Envelope,
    Limits,
    Outcome,
    TenantTerms,
    TraceRequest,
)
from serving.engines.profile import EngineProfile
from serving.policies import RequestView

ENVELOPE = Envelope(64, 2048, 16_384, 1000, 16)
STOCK = Limits(max_active_requests=64, token_budget=2048)
CLASSES = ("interactive", "conversational", "document", "batch")


def shares(weights: dict[str, float], floors: dict[str, float] | None = None) -> Contract:
    """A contract of weights and floors."""
    floors = floors or {}
    tenants = {
        name: TenantTerms(weight=weights.get(name, 1.0), floor=floors.get(name, 0.0))
        for name in (*weights, *floors)
    }
    return Contract(tenants=tenants)


def view(
    name: str = "r",
    arrival_s: float = 0.0,
    deadline_s: float = math.inf,
    prompt_tokens: int = 100,
    priority: int = 0,
    weight: float = 1.0,
    *,
    tenant: str = "acme",
    slo_class: str = "batch",
    slo: SLO = SLO(),  # noqa: B008  frozen
) -> RequestView:
    """A request as policies see it."""
    return RequestView(
        name, tenant, slo_class, slo, arrival_s, deadline_s, prompt_tokens, priority, weight
    )


@dataclass(slots=True, eq=False)
class LightRequest:
    """As much of a vLLM request as the queue reads, and its view."""

    view: RequestView
    num_output_tokens: int = 0
    num_computed_tokens: int = 0

    @property
    def request_id(self) -> str:
        return self.view.request_id

    @property
    def num_tokens(self) -> int:
        return self.view.prompt_tokens

    def is_finished(self) -> bool:
        return False


def decision(epoch: int, policy: str = "edf", **changes: object) -> Decision:
    """A decision of the controller `me` for ten seconds; `changes` replace fields."""
    fields = {
        "controller_id": "me", "epoch": epoch, "ttl_s": 10.0, "policy": policy, "params": {},
        "limits": STOCK,
    }  # fmt: skip
    return Decision(**{**fields, **changes})  # type: ignore[arg-type]


def profile(
    kv_blocks: int = 20_000, max_active_requests: int = 64, token_budget: int = 512
) -> EngineProfile:
    """A machine with the assumed cost of an 8B model on one large GPU."""
    return EngineProfile(
        "test", "assumed for tests", CostCoefficients(6.5e-3, 35e-6, 35e-6, 33e-9),
        max_active_requests, token_budget, kv_blocks,
    )  # fmt: skip


def mixed_load(
    count: int,
    rate_rps: float,
    seed: int,
    mean_output_tokens: float = 24.0,
    classes: tuple[str, ...] = CLASSES,
) -> list[TraceRequest]:
    """Poisson arrivals of three tenants, lognormal prompts, exponential answers."""
    rng = random.Random(seed)
    now_s, requests = 0.0, []
    for i in range(count):
        now_s += rng.expovariate(rate_rps)
        requests.append(
            TraceRequest(
                arrival_s=now_s,
                prompt_tokens=1 + int(rng.lognormvariate(5.5, 1.0)),
                output_tokens=1 + int(rng.expovariate(1 / mean_output_tokens)),
                tenant=f"t{i % 3}",
                slo_class=rng.choice(classes),
                priority=rng.randrange(3),
            )
        )
    return requests


def sessions(
    count: int, rate_rps: float, seed: int, mean_output_tokens: float = 40.0
) -> list[TraceRequest]:
    """Turns of chats: each prompt is the chat so far, under its tenant's system prompt."""
    rng, chats = random.Random(seed), list[tuple[int, ...]]()
    now_s, requests = 0.0, list[TraceRequest]()
    for i in range(count):
        now_s += rng.expovariate(rate_rps)
        chat = rng.randrange(40)
        while len(chats) <= chat:
            chats.append((len(chats) % 3,))
        if len(chats[chat]) > 4:
            chats[chat] = chats[chat][:1]  # a new chat
        chats[chat] = (*chats[chat], 1000 + i)
        prompt = len(chats[chat]) * 512 - rng.randrange(300)
        requests.append(
            TraceRequest(
                now_s, prompt, 1 + int(rng.expovariate(1 / mean_output_tokens)), f"t{chat % 3}",
                rng.choice(CLASSES), rng.randrange(3), chats[chat],
            )
        )  # fmt: skip
    return requests


def outcome(seq: int = 0) -> Outcome:
    """A served request that met its targets."""
    return Outcome(
        seq, f"r{seq}", 1.0, 3.0, "acme", "batch", SLO(e2e_ms=9000.0), 10, 5, 0.1, 0.5, 0.375,
        2.0, True, "", "stop", "edf", 7,
    )  # fmt: skip


def arrival(seq: int = 0) -> Arrival:
    """A request that came in."""
    return Arrival(seq, f"r{seq}", 1.0, "acme", "batch", SLO(e2e_ms=9000.0), 10, 64, 3)
