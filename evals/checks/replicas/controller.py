"""What does the controller of simulated replicas do at a short tick, and how long does that take?

It reads each replica's state, makes one of them, divides the tenants' terms among the replicas
(`serving.fleet.shares`), and writes each replica's part down as it would be sent. Its CPU time
is measured, part by part, and the replicas serve on by the old terms for as long.
"""

import json
import time
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from serving.contracts import (
    BatchState,
    Contract,
    Envelope,
    KVState,
    Limits,
    Parts,
    QueueState,
    Snapshot,
    TenantCounters,
)
from serving.contracts.codec import encode
from serving.engines.profile import EngineProfile
from serving.engines.replica_tenants import ReplicaTenants, Table
from serving.fleet.merged import merge_shots
from serving.fleet.shares import divide, divide_by_demand, parts_of

PARTS = ("merge", "shares", "messages")


class FleetController:
    """Keeps a tenant's terms those of the fleet.

    Args:
        tenants: of the replicas.
        contract: of the fleet.
        work_tokens: of a request of each tenant, shape (tenants,), as its outcomes have shown.
        profile: the machine that each replica is.

    Attributes:
        spent_s: CPU seconds of each tick, by part.
    """

    def __init__(
        self, tenants: ReplicaTenants, contract: Contract, work_tokens: NDArray[np.float64],
        profile: EngineProfile,
    ) -> None:  # fmt: skip
        self._tenants, self._contract, self._work_tokens = tenants, contract, work_tokens
        self._shot = _shot_of(profile)
        self._work = self._demand = np.zeros_like(tenants.waiting())
        self._there, self._told = np.zeros(len(self._work), bool), list[Parts]()
        self.spent_s: dict[str, list[float]] = {part: [] for part in PARTS}

    def look(self, now_s: float, away: frozenset[int] = frozenset()) -> float:
        """Decide by what the replicas say now; CPU seconds that this took.

        Args:
            now_s: virtual time.
            away: replicas that do not answer; they hold what they were told last.
        """
        tenants = self._tenants
        waiting, work, demand = tenants.waiting(), tenants.work(), tenants.demand()
        there = np.array([k not in away for k in range(len(work))])
        shots = self._shots(now_s, waiting[there], work[there])
        began_s = time.thread_time()
        merge_shots(shots, {}, "fleet", 0)
        merged_s = time.thread_time()
        weights = np.array([self._contract.terms_of(name).weight for name in tenants.names])
        served = np.maximum(0.0, work - self._work)[there]
        parts = divide(weights, waiting[there] * self._work_tokens, served)
        asked = divide_by_demand((demand - self._demand)[there])
        told: list[Parts] = [*parts_of(tenants.names, parts, asked)]
        divided_s = time.thread_time()
        for one in told:
            json.dumps({name: encode(part) for name, part in one.items()})
        written_s = time.thread_time()
        times = began_s, merged_s, divided_s, written_s
        for part, first_s, last_s in zip(PARTS, times[:-1], times[1:], strict=True):
            self.spent_s[part].append(last_s - first_s)
        self._work, self._demand, self._there, self._told = work, demand, there, told
        return written_s - began_s

    def act(self) -> None:
        """What was decided is in force on the replicas that answered."""
        for k, parts in zip(np.flatnonzero(self._there), self._told, strict=True):
            self._tenants.promise(int(k), self._contract, parts)

    def _shots(self, now_s: float, waiting: Table, work: Table) -> dict[str, Snapshot]:
        names = self._tenants.names
        return {
            f"r{k}": replace(
                self._shot, now_s=now_s, queue=QueueState(waiting=int(waits.sum())),
                counters=tuple(
                    TenantCounters(name, "", prompt_tokens=int(tokens))
                    for name, tokens in zip(names, done, strict=True)
                ),
            )
            for k, (waits, done) in enumerate(zip(waiting, work, strict=True))
        }  # fmt: skip


def _shot_of(profile: EngineProfile) -> Snapshot:
    """What a replica says of itself, but for its figures."""
    most, budget = profile.max_active_requests, profile.token_budget
    envelope = Envelope(
        most, budget, profile.max_model_len, profile.kv_blocks, profile.block_size
    )
    return Snapshot(
        now_s=0.0, rank=0, vllm_version="", epoch=1, policy="", params={},
        limits=Limits(most, budget), envelope=envelope, controller_id="fleet", lease_left_s=0.0,
        queue=QueueState(), batch=BatchState(), kv=KVState(), cost=profile.cost,
        length_coverage=None, counters=(), journal_head=0,
    )  # fmt: skip
