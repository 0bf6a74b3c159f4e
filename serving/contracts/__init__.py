"""What crosses a process boundary, and in what shape?

Every message between engine, controller and evals is in this folder, and nothing else is shared;
so are the settings that the launcher passes on to each process of a server.
Plain frozen dataclasses, cheap inside vLLM; `encode`/`decode` turn them into JSON-ready
dictionaries and back, with checks. Times are seconds on the engine's clock (Unix time when live),
lengths tokens.
"""

from serving.contracts.codec import ContractError, decode, encode
from serving.contracts.contract import (
    SLO_CLASSES,
    ClassTerms,
    Contract,
    ContractAck,
    ContractChange,
    ContractInForce,
    TenantTerms,
    contract_changes,
    tenant_name,
    with_classes,
)
from serving.contracts.decisions import (
    PERSON,
    PINNED_S,
    WHOLE,
    Ack,
    Decision,
    Envelope,
    Parts,
    Stopped,
    TenantPart,
)
from serving.contracts.limits import Limits
from serving.contracts.requests import (
    SLO,
    Arrival,
    Deprioritised,
    Finish,
    JournalPage,
    Miss,
    Outcome,
    ResidentPage,
    ResidentRequest,
    TraceRequest,
)
from serving.contracts.state import (
    BatchState,
    CostCoefficients,
    HistogramCounts,
    KVState,
    QueueState,
    RoutingHint,
    Snapshot,
    TenantCounters,
    TenantLoad,
    Totals,
)

__all__ = [
    "PERSON",
    "PINNED_S",
    "SLO",
    "SLO_CLASSES",
    "WHOLE",
    "Ack",
    "Arrival",
    "BatchState",
    "ClassTerms",
    "Contract",
    "ContractAck",
    "ContractChange",
    "ContractError",
    "ContractInForce",
    "CostCoefficients",
    "Decision",
    "Deprioritised",
    "Envelope",
    "Finish",
    "HistogramCounts",
    "JournalPage",
    "KVState",
    "Limits",
    "Miss",
    "Outcome",
    "Parts",
    "QueueState",
    "ResidentPage",
    "ResidentRequest",
    "RoutingHint",
    "Snapshot",
    "Stopped",
    "TenantCounters",
    "TenantLoad",
    "TenantPart",
    "TenantTerms",
    "Totals",
    "TraceRequest",
    "contract_changes",
    "decode",
    "encode",
    "tenant_name",
    "with_classes",
]
