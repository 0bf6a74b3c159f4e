"""How do machines compare? The time of a few steps that everyone can picture, by each profile."""

from collections.abc import Sequence

from evals.machines.designed_steps import DesignedStep
from evals.machines.kernels import Kernels
from evals.report.sheet import Sheet
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
