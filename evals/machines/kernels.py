"""How long does a step's work take on a GPU, by kernels that were measured, and what fits into it?

`aiconfigurator-core` (NVIDIA, Apache-2.0) holds times of GEMM, attention and communication for
each GPU, engine and version of it, and adds them up for one forward pass. It knows nothing of the
host: to launch and to schedule is not in its figures. The only file that imports it: it is an
optional extra, and only to make profiles is it needed.

Kernels can be asked for any step, so the steps need no server and no requests. Those that tell the
coefficients apart are random ones, of every shape that a server runs: prompt tokens are drawn
evenly up to the budget, because a loaded server fills its steps; batches and contexts evenly on a
logarithmic scale, because it runs small ones as often as large ones.
"""

import json
import logging
import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.contracts.near_names import choices
from serving.engines.profile import EngineProfile

_SHORTEST = 64  # tokens, of a prompt or a context
_MOST_PREFILLS = 8
MEMORY = 0.92  # of the GPU: `--gpu-memory-utilization`, as vLLM 0.32 has it by default
BLOCK_SIZE = 16
_PACKAGE = "aiconfigurator-core==0.12.0"
_DTYPES = ("weight_dtype", "moe_dtype", "activation_dtype", "kv_cache_dtype")
_CONFIG = "_config.json"


@dataclass(frozen=True, slots=True)
class DesignedStep:
    """One step. The prompts in it are alike, and so are the decoding requests."""

    prefills: int = 0  # prompts that are computed in it
    prefill_tokens: int = 0  # tokens of them in this step, all together
    before_tokens: int = 0  # tokens of them that are in the KV cache already, all together
    decodes: int = 0  # requests that get one token each
    decode_context: int = 0  # tokens that those have in the KV cache, all together

    @property
    def prefill_square(self) -> int:
        """Sum over the prompts of tokens in this step times tokens before it."""
        return self.prefill_tokens * self.before_tokens // max(1, self.prefills)


def designed_steps(count: int, machine: EngineProfile, seed: int) -> list[DesignedStep]:
    """A third decodes alone, a third prompts alone, a third both; half of the prompts begin here.

    The machine's batch, step and KV cache bound a step.
    """
    rng, kv_tokens = random.Random(seed), machine.kv_blocks * machine.block_size
    steps = []
    for index in range(count):
        decodes = context = prefills = tokens = before = 0
        if index % 3 != 1:
            decodes = _between(rng, 1, machine.max_active_requests)
            longest = min(machine.max_model_len, kv_tokens // decodes)
            context = decodes * _between(rng, min(_SHORTEST, longest), longest)
        if index % 3 != 0:
            most = max(_SHORTEST, machine.token_budget - decodes)
            tokens = rng.randint(_SHORTEST, most)
            prefills = _between(rng, 1, min(_MOST_PREFILLS, tokens // _SHORTEST))
            room = min(machine.max_model_len, kv_tokens // prefills) - tokens // prefills
            if rng.random() < 0.5 and room > _SHORTEST:
                before = prefills * _between(rng, _SHORTEST, room)
        steps.append(DesignedStep(prefills, tokens, before, decodes, context))
    return steps


def _between(rng: random.Random, least: int, most: int) -> int:
    return min(most, int(math.exp(rng.uniform(math.log(least), math.log(most + 1)))))


class SiliconError(ValueError):
    """A machine that no kernels were measured for; says what there is."""


@dataclass(frozen=True, slots=True)
class Server:
    """`tp` GPUs of a kind, a model in bf16, an engine (vllm or sglang) and its version."""

    gpu: str
    model: str
    tp: int
    engine: str
    version: str


class Kernels:
    """The measured kernels of one server.

    Raises:
        SiliconError: the extra is missing, or there are no kernels for this server.
    """

    def __init__(self, server: Server) -> None:
        folder = data_folder()
        if server.gpu not in (known := gpus(server.engine)):
            raise SiliconError(f"--gpu {server.gpu}: not known; {choices(server.gpu, known)}")
        if server.model not in (known := _models(folder)):
            raise SiliconError(f"--model {server.model}: not known; {choices(server.model, known)}")
        if server.version not in (known := versions(server.gpu, server.engine)):
            raise SiliconError(
                f"{server.engine} {server.version}: not measured on {server.gpu}; there are "
                f"{', '.join(known)}"
            )
        from aiconfigurator_core.sdk.rust_engine_step import RustForwardPassPerfModel

        self.server = server
        try:
            self._model = RustForwardPassPerfModel.from_native({
                "schema_version": 1, "model_name": server.model, "system_name": server.gpu,
                "backend": server.engine, "backend_version": server.version,
                "tp_size": server.tp, "pp_size": 1, "attention_dp_size": 1, "moe_tp_size": 1,
                "moe_ep_size": 1, **dict.fromkeys(_DTYPES, "bfloat16"), "kv_block_size": None,
                "nextn": None,
            })  # fmt: skip
        except ValueError as error:  # its only error here, for whatever it does not have
            raise SiliconError(
                f"no kernels for {server.model} on {server.tp} x {server.gpu}: "
                f"{str(error).splitlines()[0]}"
            ) from error
        if (source := self._model.diagnostics()["source"]) != "aic":
            raise SiliconError(f"{server.gpu}: no measured kernels, only {source!r}")

    def seconds(self, step: DesignedStep) -> float:
        """Time on the GPU of one step."""
        estimated_ms = self._model.estimate_forward_pass_time_ms({
            "version": 1,
            "scheduled_requests": {
                "num_prefill_requests": step.prefills, "sum_prefill_tokens": step.prefill_tokens,
                "sum_prefill_kv_tokens": step.before_tokens, "num_decode_requests": step.decodes,
                "sum_decode_kv_tokens": step.decode_context,
            },
        })  # fmt: skip
        return float(estimated_ms) / 1000

    def kv_blocks(self, token_budget: int, max_active_requests: int) -> int:
        """KV blocks of each GPU beside the weights and the largest step.

        Raises:
            SiliconError: the model does not fit.
        """
        from aiconfigurator_core.sdk.memory import estimate_num_gpu_blocks

        server = self.server
        try:
            return int(estimate_num_gpu_blocks(
                server.model, server.gpu, server.engine, server.version, tp_size=server.tp,
                scheduler_block_size=BLOCK_SIZE, max_num_tokens=token_budget,
                max_batch_size=max_active_requests, memory_fraction_kind="of_total",
                memory_fraction_value=MEMORY,
            ))  # fmt: skip
        except ValueError as error:
            raise SiliconError(
                f"{server.model} does not fit on {server.tp} x {server.gpu}: "
                f"{str(error).splitlines()[0]}: more GPUs with --tp"
            ) from error


def data_folder() -> Path:
    """Where the extra keeps its data.

    Raises:
        SiliconError: it is not installed; says how.
    """
    try:
        import aiconfigurator_core
    except ImportError as error:
        raise SiliconError(
            f"profiles are made with an extra (x86-64 Linux): pip install {_PACKAGE}"
        ) from error
    # Of kernels that no model here uses it says that they are estimated.
    logging.getLogger("aiconfigurator_core").setLevel(logging.ERROR)
    return Path(aiconfigurator_core.__path__[0])


def gpus(engine: str) -> list[str]:
    """The GPUs on which an engine's kernels were measured."""
    names = sorted(file.stem for file in (data_folder() / "systems").glob("*.yaml"))
    return [name for name in names if versions(name, engine)]


def versions(gpu: str, engine: str) -> list[str]:
    """The versions of an engine that were measured on a GPU, the one to take by default first.

    Raises:
        SiliconError: the extra is missing.
    """
    data_folder()
    from aiconfigurator_core.sdk.perf_database import get_version_slots

    slots: dict[str, str] = get_version_slots(gpu, engine) or {}
    return list(slots.values())


def memory_bytes(gpu: str) -> int:
    """The memory of one GPU."""
    from aiconfigurator_core.sdk.perf_database import load_system_spec

    spec: dict[str, Any] = load_system_spec(gpu)
    return int(spec["gpu"]["mem_capacity"])


def _models(folder: Path) -> list[str]:
    """The models that are known and not quantised."""
    configs = folder / "model_configs"
    names = (file.name.removesuffix(_CONFIG) for file in sorted(configs.glob(f"*{_CONFIG}")))
    return [
        name.replace("--", "/", 1)
        for name in names
        if not name.endswith("_hf_quant")
        and not (configs / f"{name}_hf_quant{_CONFIG}").is_file()
        and "quantization_config" not in json.loads((configs / f"{name}{_CONFIG}").read_text())
    ]
