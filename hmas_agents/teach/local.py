"""How is a model in this process asked as vLLM is? Greedy, and bound to what it may answer.

By xgrammar, which is what vLLM binds decoding with, so that answers and log-probabilities agree.
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import torch

from hmas_agents.agents.chat import Answer
from hmas_agents.intent.endpoint import MAX_TOKENS
from hmas_agents.teach.adapter import merge_adapter
from hmas_agents.teach.train import load
from prompts.loader import FrontMatter, Message


class LocalModel:
    """Answers by a causal language model of transformers, as `Endpoint` gives them."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        import xgrammar

        self._model, self._tokenizer = model, tokenizer
        width = model.config.vocab_size
        info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=width)
        self._compiler = xgrammar.GrammarCompiler(info)

    @classmethod
    def taught(cls, base: Path, adapter: Path) -> Self:
        """The base model with an adapter in it.

        Raises:
            TeachError: a part is missing, or they do not fit together.
        """
        with TemporaryDirectory() as scratch:
            merged = Path(scratch) / "merged"
            merge_adapter(base, adapter, merged)
            return cls(*load(merged))

    def complete(self, prompt: str, regex: str) -> Answer:
        """The most likely answer that matches, token by token."""
        given = self._tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
        return self._generated(given, self._compiler.compile_regex(regex), MAX_TOKENS)

    def chat(self, messages: list[Message], schema: dict[str, Any], head: FrontMatter) -> Answer:
        """The most likely answer of this JSON schema, token by token."""
        given = self._tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        grammar = self._compiler.compile_json_schema(json.dumps(schema), any_whitespace=False)
        return self._generated(given, grammar, head.max_tokens or MAX_TOKENS)

    @torch.no_grad()
    def _generated(self, given: Any, grammar: Any, max_tokens: int) -> Answer:
        from xgrammar.contrib.hf import LogitsProcessor

        out = self._model.generate(
            **given,
            max_new_tokens=max_tokens,
            do_sample=False,
            logits_processor=[LogitsProcessor(grammar)],
            pad_token_id=self._tokenizer.eos_token_id,
            return_dict_in_generate=True,
            output_scores=True,
        )
        read = given["input_ids"].shape[1]
        written = out.sequences[0, read:]
        each = [
            score[0].float().log_softmax(-1)[token].item()
            for score, token in zip(out.scores, written, strict=True)
        ]
        text = self._tokenizer.decode(written, skip_special_tokens=True)
        return Answer(text, "stop", read, len(written), logprob=sum(each))
