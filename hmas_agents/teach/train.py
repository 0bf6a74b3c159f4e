"""How is the adapter trained? A plain loop over drawn examples, on the CPU.

Low-rank adaptation (Hu et al., 2021) of every linear layer. The loss is the cross entropy of the
code's tokens and of the end; the text's tokens are only read.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from hmas_agents.intent.taught_reader import prompt_of
from hmas_agents.teach.adapter import TeachError
from hmas_agents.teach.examples import Examples

RANK, ALPHA = 8, 16
BATCH = 16  # examples: of as many texts, small batches teach more
_PEAK_LR = 1.5e-3
_POOL = 32  # batches drawn at once, and cut by length: little padding
_IGNORED = -100  # a label that counts nothing


@dataclass(frozen=True, slots=True)
class Step:
    """Where training stands: steps done of how many, and the loss of the last one per token."""

    done: int
    steps: int
    loss: float


def load(base: Path, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """A model and its tokenizer. To be trained beside an adapter it is faster in bf16.

    Raises:
        TeachError: it is not there.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()  # ours says how far it is
    if not (base / "config.json").is_file():
        raise TeachError(f"{base}: no model: run `make model`")
    # Texts are short: with attention that is not fused a step takes a fifth less.
    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype, attn_implementation="eager")
    return model, AutoTokenizer.from_pretrained(base)


def with_adapter(model: Any, seed: int) -> Any:
    """The model with a new adapter in float32, which alone is trained.

    Raises:
        TeachError: peft is not installed.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise TeachError("peft is not installed: pip install 'hmas-scheduler[teach]'") from error
    torch.manual_seed(seed)
    return get_peft_model(
        model,
        LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"),
    )


def train(
    model: Any, tokenizer: Any, examples: Examples, steps: int, on_step: Callable[[Step], None]
) -> None:
    """Train the adapter of a model of `with_adapter`, in place; leaves it ready to be asked."""
    trained = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=_PEAK_LR, weight_decay=0.0)
    rate = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, _PEAK_LR, total_steps=steps, pct_start=0.1
    )
    model.train()
    for done, batch in enumerate(islice(_batches(tokenizer, examples), steps), 1):
        with torch.autocast("cpu", torch.bfloat16):  # twice as fast where the CPU has it
            loss = answer_loss(model, *batch)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        rate.step()
        on_step(Step(done, steps, loss.item()))
    model.eval()


def answer_loss(model: Any, tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy of the labelled tokens.

    Args:
        model: of `with_adapter`.
        tokens: (examples, length), padded on the right.
        labels: of the same shape; `_IGNORED` where the token is not to be learnt.
    """
    inner = model.get_base_model()
    hidden = inner.model(input_ids=tokens).last_hidden_state[:, :-1]
    wanted = labels[:, 1:]
    learnt = wanted != _IGNORED
    # Of 49,152 words each: only where they count, which is a third of the places.
    return cross_entropy(inner.lm_head(hidden[learnt]), wanted[learnt])


def _batches(tokenizer: Any, examples: Examples) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    end = tokenizer.eos_token_id
    while True:
        pool = []
        for _ in range(_POOL * BATCH):
            example = examples.draw()
            read = tokenizer(prompt_of(example.marked.text), add_special_tokens=False).input_ids
            written = tokenizer(example.code, add_special_tokens=False).input_ids
            pool.append((read, [*written, end]))
        pool.sort(key=lambda pair: len(pair[0]) + len(pair[1]))
        cut = [pool[at : at + BATCH] for at in range(0, len(pool), BATCH)]
        for at in torch.randperm(len(cut)).tolist():
            yield _padded(cut[at], end)


def _padded(
    pairs: list[tuple[list[int], list[int]]], pad: int
) -> tuple[torch.Tensor, torch.Tensor]:
    length = max(len(read) + len(written) for read, written in pairs)
    tokens = torch.full((len(pairs), length), pad)
    labels = torch.full((len(pairs), length), _IGNORED)
    for row, (read, written) in enumerate(pairs):
        whole = len(read) + len(written)
        tokens[row, :whole] = torch.tensor(read + written)
        labels[row, len(read) : whole] = torch.tensor(written)
    return tokens, labels
