"""Which profile does a GPU have by its measured kernels? A cost model fitted to designed steps.

`hmas profile silicon`. What a step costs is the time of its kernels and a charge for the host.
The five coefficients are fitted to many random steps; how far these lie from the fit is kept as
the profile's residuals. Machines are compared by a few steps that everyone can picture.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version as version_of

import numpy as np

from evals.machines.fit import fit_relative, residuals
from evals.machines.kernels import (
    BLOCK_SIZE,
    MEMORY,
    DesignedStep,
    Kernels,
    Server,
    SiliconError,
    designed_steps,
    memory_bytes,
    versions,
)
from evals.machines.steps import Steps, steps_of
from evals.report.sheet import Sheet
from serving.contracts import CostCoefficients
from serving.engines.profile import EngineProfile
from serving.perception.cost_model import StepShape

STEPS = {
    "1 decode": DesignedStep(decodes=1, decode_context=1000),
    "128 decodes": DesignedStep(decodes=128, decode_context=128_000),
    "256 decodes": DesignedStep(decodes=256, decode_context=256_000),
    "prefill 2,048": DesignedStep(prefills=1, prefill_tokens=2048),
    "prefill 8,192": DesignedStep(prefills=1, prefill_tokens=8192),
    "2,048 + 128": DesignedStep(1, 2048, 0, 128, 128_000),
}
# What is left of the host's work on each step where vLLM schedules ahead (its default): 0.15 to
# 0.17 ms between two steps of 256 requests under CUDA graphs, vLLM's pull request 11133. Without
# scheduling ahead it was 5 to 6 ms there.
HOST_S = 0.2e-3
MAX_MODEL_LEN = 16_384
_STEPS, _SEED = 3000, 0
_GIB = 2**30


def step_times_ms(profile: EngineProfile) -> dict[str, float]:
    """What the cost model says of each of STEPS."""
    return {
        name: round(1000 * StepShape(
            step.prefill_tokens, step.decodes, step.decode_context, step.prefill_square
        ).seconds(profile.cost), 1)
        for name, step in STEPS.items()
    }  # fmt: skip


def kernel_times_ms(kernels: Kernels) -> dict[str, float]:
    """What the kernels of each of STEPS take, without the host."""
    return {name: round(1000 * kernels.seconds(step), 1) for name, step in STEPS.items()}


def profiles_sheet(profiles: Sequence[EngineProfile]) -> Sheet:
    """Step times and room of each profile."""
    rows = [
        [profile.name, *(f"{ms:,.1f}" for ms in step_times_ms(profile).values()),
         f"{profile.kv_blocks * profile.block_size / 1000:,.0f}"]
        for profile in profiles
    ]  # fmt: skip
    return Sheet(
        "Profiles: milliseconds of one step, and thousands of tokens in the KV cache",
        ("profile", *(name.replace(" ", "\n", 1) for name in STEPS), "KV"),
        rows,
        "Decodes have 1,000 tokens of context each; 2,048 + 128 is a prefill beside 128 decodes. "
        "By the cost model; where the figures come from is in evals/profiles/NAME.toml.",
    )


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to make a profile of."""

    # gpu, model: as `aiconfigurator-core` names them.
    gpu: str
    model: str
    tp: int = 1  # GPUs that share the model
    vllm: str = ""  # version of the kernels; empty: the one that is measured for this GPU
    host_s: float = HOST_S  # charged to each step for the work of the host
    max_model_len: int = MAX_MODEL_LEN  # longest request

    @property
    def name(self) -> str:
        """How the profile is called by default: `h100x4_llama_70b`."""
        gpu = self.gpu.removesuffix("_sxm") + (f"x{self.tp}" if self.tp > 1 else "")
        model = self.model.rpartition("/")[2].lower().removeprefix("meta-")
        return f"{gpu}_{re.sub(r'-[0-9.]+(?=-)', '', model).replace('-', '_')}"

    @property
    def command(self) -> str:
        """What makes this profile."""
        options = f"--gpu {self.gpu} --model {self.model} --tp {self.tp}"
        options += f" --vllm {self.vllm}" if self.vllm else ""
        options += f" --host-ms {self.host_s * 1000:g}" if self.host_s != HOST_S else ""
        if self.max_model_len != MAX_MODEL_LEN:
            options += f" --max-model-len {self.max_model_len}"
        return f"hmas profile silicon {options}"


@dataclass(frozen=True, slots=True)
class Made:
    """A profile, in words where it comes from, and what kernels of a few steps take (ms)."""

    profile: EngineProfile
    comments: list[str]
    kernels_ms: dict[str, float]


@dataclass(frozen=True, slots=True)
class _Fitted:
    cost: CostCoefficients
    residuals: tuple[float, ...]
    words: str


def silicon_profile(wanted: Wanted) -> Made:
    """Make a profile from measured kernels.

    Raises:
        SiliconError: the extra is missing, or there are no kernels for it; says what there is.
    """
    vllm = Kernels(_server(wanted, "vllm", wanted.vllm))
    max_active, budget = default_sizes(wanted.gpu)
    sized = EngineProfile(
        wanted.name, "", CostCoefficients(0, 0, 0), max_active, budget,
        vllm.kv_blocks(budget, max_active), BLOCK_SIZE, wanted.max_model_len, prefix_caching=True,
    )  # fmt: skip
    steps = designed_steps(_STEPS, sized, _SEED)
    fitted, sglang = _fit(vllm, steps, wanted.host_s), _fit_sglang(wanted, steps)
    package = f"aiconfigurator-core {version_of('aiconfigurator-core')}"
    profile = replace(
        sized,
        provenance=(
            f"kernels measured on {wanted.gpu}, vLLM {vllm.server.version} ({package}); "
            f"{wanted.model} in bf16, tp {wanted.tp}; {wanted.host_s * 1000:g} ms a step for the "
            f"host; {fitted.words}"
        ),
        cost=fitted.cost,
        residuals=fitted.residuals,
        other_costs={} if sglang is None else {"sglang": sglang[1].cost},
    )
    comments = [
        f"Made by `{wanted.command}`.",
        f"kernels: {package} (NVIDIA, Apache-2.0), vLLM {vllm.server.version}, bf16; no server ran",
        f"host: {wanted.host_s * 1000:g} ms in each step, which no kernel's time includes",
        f"fit: {_STEPS} random steps, non-negative least squares of the relative error;",
        f"  {fitted.words}",
        "SGLang: no kernels measured; its emulation is charged vLLM's"
        if sglang is None
        else f"SGLang {sglang[0]}'s own kernels, the same steps: {sglang[1].words}",
        f"sizes: vLLM's defaults for {memory_bytes(wanted.gpu) / _GIB:.0f} GiB of this GPU; KV "
        f"blocks in {MEMORY:.0%} of it",
    ]
    return Made(profile, comments, kernel_times_ms(vllm))


def default_sizes(gpu: str) -> tuple[int, int]:
    """VLLM's own `--max-num-seqs` and `--max-num-batched-tokens` of a server on this GPU.

    As `EngineArgs.get_batch_defaults` of vLLM 0.32 has them.
    """
    gib = memory_bytes(gpu) / _GIB
    if gib >= 160:
        return 1024, 16_384
    if gib >= 70 and not gpu.startswith("a100"):
        return 1024, 8192
    return 256, 2048


def _server(wanted: Wanted, engine: str, asked: str = "") -> Server:
    measured = versions(wanted.gpu, engine)
    version = asked or next(iter(measured), "")
    return Server(wanted.gpu, wanted.model, wanted.tp, engine, version)


def _fit_sglang(wanted: Wanted, steps: list[DesignedStep]) -> tuple[str, _Fitted] | None:
    """SGLang's version and costs; None where it was not measured."""
    try:
        kernels = Kernels(_server(wanted, "sglang"))
    except SiliconError:
        return None
    return kernels.server.version, _fit(kernels, steps, wanted.host_s)


def _fit(kernels: Kernels, steps: list[DesignedStep], host_s: float) -> _Fitted:
    measured = timed(kernels, steps, host_s)
    cost = fit_relative(measured)
    errors = np.abs(measured.seconds / measured.predicted_s(cost) - 1)
    p50, p90, worst = np.percentile(errors, (50, 90, 100))
    words = f"|step / fit - 1|: p50 {p50:.1%}, p90 {p90:.1%}, worst {worst:.0%}"
    return _Fitted(cost, residuals(measured, cost), words)


def timed(kernels: Kernels, steps: list[DesignedStep], host_s: float) -> Steps:
    """Each step's time on GPU and host, as a log of steps."""
    return steps_of([
        (0.0, kernels.seconds(step) + host_s, step.prefill_tokens, step.decodes,
         step.decode_context, step.prefill_square)
        for step in steps
    ])  # fmt: skip
