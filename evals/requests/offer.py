"""What does a workload offer at a given rate, and when does its traffic change?

The mean over the time that counts is the rate, changes included; before and after it traffic is
the same. The same for every arm, so that arms are compared on the same arrivals. Called by the
runners.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from evals.requests.columns import LazyRequests, RequestColumns
from evals.requests.sending import Block, Sender, sent
from evals.requests.trace import WorkloadError
from evals.suite.shapes import Change, Span
from evals.suite.suite import Scenario
from evals.suite.traffic_spec import Half
from hmas_agents.situation import Expected
from serving.contracts import TraceRequest
from serving.contracts.contract import TenantTerms
from serving.contracts.settings import EngineSettings

TRIES = 12
DEVELOPMENT = 1 << 32  # no seed of a suite is as large
NEAR, FAR = 0.01, 0.05  # of the rate that was asked for: near enough, and worth a warning
MOST_REQUESTS = 5_000_000
SAMPLE_REQUESTS = 2000


@dataclass(frozen=True)
class Workload:
    """Who sends in a block, and how long it is."""

    scenario: str  # its name; of several profiles, with that of the profile
    spec: Scenario  # the scenario as in the suite
    half: Half  # of the trace
    seed: int  # what decides block, clients, arrivals and lengths
    profile: str  # name of the machine; empty: a server
    senders: tuple[Sender, ...]  # on the block's clock
    span: Span  # how long it is, and what of it counts
    max_model_len: int  # longer requests are clipped
    # Of tenants where tenants share, if the contract does not say.
    weights: tuple[tuple[str, float], ...]
    provenance: str  # where requests come from

    @property
    def changes(self) -> tuple[Change, ...]:
        """Of the scenario, on the block's clock."""
        return tuple(one.change(self.span) for one in self.spec.changes)

    @cached_property
    def requests(self) -> Sequence[TraceRequest]:
        """About SAMPLE_REQUESTS requests, of the same mix at any rate: for what has no load."""
        return offer(self, SAMPLE_REQUESTS / self.span.until_s).requests

    @property
    def block(self) -> Block:
        """What is to be filled. What is synthetic is drawn anew for the half that one tunes on."""
        drawn = self.seed + (DEVELOPMENT if self.half == "development" else 0)
        return Block(self.span.until_s, drawn, self.changes)

    def at_factor(self, factor: float) -> RequestColumns:
        """What all send at so many times their own rates, clipped to the model's context."""
        columns = sent(self.senders, factor, self.block)
        if len(columns) > MOST_REQUESTS:
            raise WorkloadError(f"{self.scenario}: more than {MOST_REQUESTS:,} requests in a case")
        return columns.scaled(self.spec.length_scale).clipped(self.max_model_len)[0]

    def settings(self, given: EngineSettings) -> EngineSettings:
        """A suite's settings as they are in this workload: scaled SLOs, tenants' weights."""
        changed: dict[str, object] = {}
        if self.spec.slo_scale is not None:
            changed["slo_scale"] = self.spec.slo_scale
        if self.weights:
            ours = {name: TenantTerms(weight=weight) for name, weight in self.weights}
            tenants = ours | given.contract.tenants
            changed["contract"] = given.contract.model_copy(update={"tenants": tenants})
        return given.model_copy(update=changed) if changed else given


@dataclass(frozen=True, slots=True)
class Offered:
    """What is offered at a load, from 0 s to the end of the block."""

    requests: Sequence[TraceRequest]  # in order of arrival
    counted_rps: float  # their mean rate over the time that counts
    moments_s: tuple[float, ...] = ()  # when traffic changes
    # The changes that an operator could have announced. Each is about what is sent just before it:
    # until then it holds, afterwards it has become the present.
    expected: tuple[Expected, ...] = ()


def offer(workload: Workload, rate_rps: float) -> Offered:
    """The requests of a workload at a rate.

    Raises:
        WorkloadError: nothing is sent in the time that counts, or too much.
    """
    span = workload.span
    wanted = rate_rps * span.counted_s
    factor, counted = 1.0, 0
    columns = workload.at_factor(0.0)
    for i in range(TRIES):  # the second is nearly there; chance has a say in what counts
        tried = workload.at_factor(factor)
        found = len(tried.between(span.warmup_s, span.counted_until_s))
        if abs(found - wanted) < abs(counted - wanted):
            columns, counted = tried, found
        if abs(counted / wanted - 1) <= NEAR:
            break
        # From then on half the way: bursts come and go with the factor, and it would swing.
        factor *= min(wanted / found, 100.0) ** (1.0 if i < 2 else 0.5) if found else 100.0
    if not counted:
        raise WorkloadError(
            f"{workload.scenario}: no requests from {workload.provenance} in minutes = "
            f"{span.counted_s / 60:.3g} at {rate_rps:.3g} requests/s: take more minutes"
        )
    changes = workload.changes
    edges_s = {edge for one in changes for edge in one.edges_s if 0 < edge < span.counted_until_s}
    return Offered(
        LazyRequests(columns), counted / span.counted_s, tuple(sorted(edges_s)),
        tuple(sorted(_expected(changes, span.until_s), key=lambda one: one.from_s)),
    )  # fmt: skip


def _expected(changes: Sequence[Change], length_s: float) -> list[Expected]:
    """A ramp is announced as a step in its middle; what comes from nothing has no factor."""
    found = []
    for one in changes:
        for edge_s, factor in ((one.from_s, one.factor), (one.until_s, 1 / (one.factor or 1.0))):
            at_s = edge_s + one.over_s / 2
            if 0 < at_s < length_s and factor != 1.0:
                found.append(Expected(factor, at_s, tenant=one.tenant))
    return found
