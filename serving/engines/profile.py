"""What machine does the simulator imitate?

A profile is a cost model, the engine's fixed sizes, and where the figures come
from. Loaded from TOML by evals; built from a live snapshot by the twin.
"""

from dataclasses import dataclass, field

from serving.contracts import CostCoefficients, Snapshot


@dataclass(frozen=True, slots=True)
class EngineProfile:
    """An engine as the simulator needs it.

    Attributes:
        provenance: how the figures were got.
        prefix_caching: the KV cache keeps prompts for those that begin alike, as vLLM's does
            by default.
        residuals: how steps scatter about the cost model: quantiles of measured / predicted - 1,
            evenly spaced from the least to the most. Virtual engines draw the noise of their steps
            from them; empty is none.
        noise_seed: decides that noise.
        other_costs: cost models of other engines' kernels on the same machine, by engine.
    """

    name: str
    provenance: str
    cost: CostCoefficients
    max_active_requests: int
    token_budget: int
    kv_blocks: int
    block_size: int = 16
    max_model_len: int = 16_384
    prefix_caching: bool = False
    residuals: tuple[float, ...] = ()
    noise_seed: int = 0
    other_costs: dict[str, CostCoefficients] = field(default_factory=dict)


def profile_from_snapshot(snapshot: Snapshot) -> EngineProfile:
    """The running engine's profile: its envelope and its fitted cost model.

    Of several data-parallel ranks it is the profile of one.
    """
    envelope = snapshot.envelope
    return EngineProfile(
        name="running-engine",
        provenance=f"fitted online by the engine (vLLM {snapshot.vllm_version})",
        cost=snapshot.cost,
        max_active_requests=envelope.max_active_requests,
        token_budget=envelope.token_budget,
        kv_blocks=envelope.kv_blocks,
        block_size=envelope.block_size,
        max_model_len=envelope.max_model_len,
        prefix_caching=envelope.prefix_caching,
    )
