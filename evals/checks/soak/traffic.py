"""What does a soak send? Random requests by seed: whole ones, leavers, and bad ones.

Grammars, stop strings, several answers, LoRA adapters, shared prefixes, odd tenants and SLOs in a
well-formed request must be served; what is broken must be refused with a 4xx and never reach the
engine. Of the adapters there are two and one slot, so that requests of one wait while the other's
run. Called by `clients`, `write_adapters` by `run`.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors.numpy import save_file

from evals.live.request_body import completion_body
from serving.contracts import TraceRequest

ADAPTERS = ("soak-adapter-a", "soak-adapter-b")
_RANK, _SMALL = 4, 1e-3  # of random weights: answers stay answers

Kind = Literal["whole", "leaver", "bad"]
Flavour = Literal["plain", "grammar", "stop", "twice", "adapter"]

_LEAVERS, _BAD = 0.15, 0.15  # shares
_PROMPT_TOKENS, _OUTPUT_TOKENS = (1, 400), (1, 64)
_PREFIXES, _PREFIX_TOKENS = 4, 512  # prompts that some requests share, in Mooncake's block size
_TOKEN_SEED = 1  # one for all: what is shared has the same tokens, what is not goes by the index
_FLAVOURS: tuple[tuple[Flavour, float], ...] = (
    ("plain", 0.5), ("grammar", 0.12), ("stop", 0.12), ("twice", 0.11), ("adapter", 0.15),
)  # fmt: skip
# The first ones of a kind have to be compiled, so a request waits for its grammar.
_GRAMMARS: tuple[dict[str, Any], ...] = (
    {"choice": ["yes", "no", "perhaps"]},
    {"regex": "[a-f]{2,8}-[0-9]{1,5}"},
    {"json": {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}},
)
_TENANTS = ("acme", "globex", "initech", "umbrella")
_CLASSES = ("interactive", "conversational", "document", "batch", "best_effort")
# Odd, and no reason to refuse: the hook ignores what does not fit.
_ODD_XARGS: tuple[dict[str, Any], ...] = (
    {"slo_ttft_ms": -5, "slo_tpot_ms": 0},
    {"slo_ttft_ms": 1e300, "slo_e2e_ms": 1e-300},
    {"slo_ttft_ms": "soon", "slo_class": 7},
    {"slo_class": "no-such-class", "tenant": ""},
    {"tenant": ["a", 1], "slo_class": ["interactive"]},
    {"tenant": "x" * 500, "slo_tpot_ms": "1e400"},
    {"tenant": "\u202e<script>{}\n", "slo_e2e_ms": "NaN"},
)


@dataclass(frozen=True, slots=True)
class Errand:
    """One request as its client will handle it."""

    kind: Kind  # `whole` waits for the end, `leaver` goes away earlier, `bad` must be refused
    body: bytes  # as sent
    wait_s: float  # time to the next request
    # leave_after_tokens, leave_after_s: when a leaver goes; the other one is None.
    leave_after_tokens: int | None = None
    leave_after_s: float | None = None
    flavour: Flavour = "plain"  # what is special about it

    @property
    def answers(self) -> int:
        """How many requests the engine makes of it: vLLM runs each of `n` answers by itself."""
        return 2 if self.flavour == "twice" else 1


def draw_errand(
    rng: random.Random,
    index: int,
    *,
    model: str,
    rate_rps: float,
    max_model_len: int,
    adapters: Sequence[str] = (),
) -> Errand:
    """The next request of a soak; Poisson arrivals at `rate_rps`.

    Without `adapters` nobody asks for one.
    """
    wait_s = rng.expovariate(rate_rps)
    body = _good_body(rng, index, model)
    drawn = rng.random()
    if drawn < _BAD:
        return Errand("bad", _bad_body(rng, body, max_model_len), wait_s)
    names, weights = zip(*_FLAVOURS, strict=True)
    flavour: Flavour = rng.choices(names, weights)[0]
    if flavour == "adapter" and not adapters:
        flavour = "plain"
    sent = json.dumps(body | _special(rng, flavour, adapters)).encode()
    if drawn < _BAD + _LEAVERS:
        if rng.random() < 0.5:
            tokens = rng.randint(1, 20)
            return Errand("leaver", sent, wait_s, leave_after_tokens=tokens, flavour=flavour)
        after_s = rng.uniform(0.0, 4.0)
        return Errand("leaver", sent, wait_s, leave_after_s=after_s, flavour=flavour)
    return Errand("whole", sent, wait_s, flavour=flavour)


def _special(rng: random.Random, flavour: Flavour, adapters: Sequence[str]) -> dict[str, Any]:
    if flavour == "grammar":
        return {"ignore_eos": False, "structured_outputs": rng.choice(_GRAMMARS)}
    if flavour == "stop":
        return {"stop": rng.sample(["e", " the", "\n", "qqq"], 2)}
    if flavour == "twice":
        return {"n": 2, "temperature": 1.0}
    return {"model": rng.choice(adapters)} if flavour == "adapter" else {}


def _good_body(rng: random.Random, index: int, model: str) -> dict[str, Any]:
    tenant = f"passer-by-{index}" if rng.random() < 0.1 else rng.choice(_TENANTS)
    low, high = _PROMPT_TOKENS
    prefix = (rng.randrange(_PREFIXES),) if rng.random() < 0.2 else ()
    request = TraceRequest(
        arrival_s=0.0,
        prompt_tokens=round(low * (high / low) ** rng.random()) + len(prefix) * _PREFIX_TOKENS,
        output_tokens=rng.randint(*_OUTPUT_TOKENS),
        tenant=tenant,
        slo_class=rng.choice(_CLASSES),
        prefix=prefix,
    )
    body = completion_body(model, request, _TOKEN_SEED, index)
    if rng.random() < 0.2:  # ends where the model ends it
        # Without a seed of its own: vLLM 0.32 on CPU dies of one (no offset in torch's generator).
        body.update(ignore_eos=False, temperature=1.0)
    if rng.random() < 0.2:
        body["vllm_xargs"] |= rng.choice(_ODD_XARGS)
    if rng.random() < 0.05:
        del body["vllm_xargs"]
    return body


def _bad_body(rng: random.Random, body: dict[str, Any], max_model_len: int) -> bytes:
    broken: tuple[dict[str, Any], ...] = (
        {"prompt": [200] * (max_model_len + 1)},
        {"prompt": {"text": "?"}},
        {"max_tokens": -1},
        {"max_tokens": "many"},
        {"temperature": "hot"},
        {"temperature": -2.0},
        {"model": "no-such-model"},
        {"vllm_xargs": ["tenant", "acme"]},
        {"vllm_xargs": {"tenant": {"name": "acme"}}},
        {"vllm_xargs": {"slo_ttft_ms": None, "tenant": [[1]]}},
    )
    choice = rng.randrange(len(broken) + 3)
    if choice < len(broken):
        return json.dumps(body | broken[choice]).encode()
    whole = json.dumps(body).encode()
    return (b"", b"\xff\xfe not text", whole[: len(whole) // 2])[choice - len(broken)]


def write_adapters(model: Path, out: Path) -> list[str]:
    """Write the adapters for a Llama-shaped checkpoint; the arguments that make vLLM serve both.

    Raises:
        OSError: a folder cannot be read or written.
    """
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    hidden, size = config["hidden_size"], config["head_dim"]
    widths = {
        "q_proj": size * config["num_attention_heads"],
        "v_proj": size * config["num_key_value_heads"],
    }
    rng = np.random.default_rng(0)
    served = []
    for name in ADAPTERS:
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        weights = {}
        for layer in range(config["num_hidden_layers"]):
            for module, width in widths.items():
                place = f"base_model.model.model.layers.{layer}.self_attn.{module}"
                for side, shape in (("A", (_RANK, hidden)), ("B", (width, _RANK))):
                    drawn = _SMALL * rng.standard_normal(shape)
                    weights[f"{place}.lora_{side}.weight"] = drawn.astype(np.float32)
        save_file(weights, folder / "adapter_model.safetensors")
        about = {
            "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": _RANK, "lora_alpha": _RANK,
            "target_modules": sorted(widths), "bias": "none", "base_model_name_or_path": str(model),
        }  # fmt: skip
        (folder / "adapter_config.json").write_text(json.dumps(about), encoding="utf-8")
        served.append(f"{name}={folder.resolve()}")
    return [
        "--enable-lora", "--max-loras", "1", "--max-lora-rank", "8", "--lora-modules", *served
    ]  # fmt: skip
