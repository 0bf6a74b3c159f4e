"""How is a model in this process asked as vLLM is? Greedy, bound to a regular expression.

By xgrammar, which is what vLLM binds decoding with, so that answers and log-probabilities agree.
"""

from typing import Any

import torch

from hmas_agents.agents.chat import Answer
from hmas_agents.intent.taught_reader import MAX_TOKENS


class LocalModel:
    """Completions by a causal language model of transformers."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        import xgrammar

        self._model, self._tokenizer = model, tokenizer
        width = model.config.vocab_size
        info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=width)
        self._compiler = xgrammar.GrammarCompiler(info)

    @torch.no_grad()
    def __call__(self, prompt: str, regex: str) -> Answer:
        """The most likely answer that matches, token by token."""
        from xgrammar.contrib.hf import LogitsProcessor

        given = self._tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
        out = self._model.generate(
            **given,
            max_new_tokens=MAX_TOKENS,
            do_sample=False,
            logits_processor=[LogitsProcessor(self._compiler.compile_regex(regex))],
            pad_token_id=self._tokenizer.eos_token_id,
            return_dict_in_generate=True,
            output_scores=True,
        )
        read = given.input_ids.shape[1]
        written = out.sequences[0, read:]
        each = [
            score[0].float().log_softmax(-1)[token].item()
            for score, token in zip(out.scores, written, strict=True)
        ]
        text = self._tokenizer.decode(written, skip_special_tokens=True)
        return Answer(text, "stop", read, len(written), logprob=sum(each))
