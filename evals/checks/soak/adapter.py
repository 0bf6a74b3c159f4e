"""Which LoRA adapters does a soak serve? Two small random ones for the embedded model.

Two adapters and one slot, so that requests of one wait while the other's run. What they make of
the answers does not matter. Called by `run`.
"""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

ADAPTERS = ("soak-adapter-a", "soak-adapter-b")
RANK = 4
_SMALL = 1e-3  # answers stay answers


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
                for side, shape in (("A", (RANK, hidden)), ("B", (width, RANK))):
                    drawn = _SMALL * rng.standard_normal(shape)
                    weights[f"{place}.lora_{side}.weight"] = drawn.astype(np.float32)
        save_file(weights, folder / "adapter_model.safetensors")
        about = {
            "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": RANK,
            "target_modules": sorted(widths), "bias": "none", "base_model_name_or_path": str(model),
        }  # fmt: skip
        (folder / "adapter_config.json").write_text(json.dumps(about), encoding="utf-8")
        served.append(f"{name}={folder.resolve()}")
    return [
        "--enable-lora", "--max-loras", "1", "--max-lora-rank", "8", "--lora-modules", *served
    ]  # fmt: skip
