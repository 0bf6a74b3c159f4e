"""Is the GPU suite what a server can run, and are server and profile of one size?"""

from itertools import pairwise
from pathlib import Path

import pytest

from evals.machines.profile_file import load_profile
from evals.suite.arms import parse_arm
from evals.suite.suite import load_suite

SUITE = Path("evals/checks/fidelity/gpu_suite.toml")
MODEL = Path("evals/models/llama_8b_shape")


def options(path):
    return dict(pairwise(load_suite(path).server))


def test_every_arm_stays_as_it_is():
    assert {parse_arm(arm).kind for arm in load_suite(SUITE).arms} == {"stock", "fixed"}


def test_the_server_is_started_with_the_sizes_of_the_profile():
    profile, given = load_profile(load_suite(SUITE).profile), options(SUITE)
    assert int(given["--max-model-len"]) == profile.max_model_len
    assert int(given["--max-num-seqs"]) == profile.max_active_requests
    assert int(given["--max-num-batched-tokens"]) == profile.token_budget
    assert profile.prefix_caching == ("--no-enable-prefix-caching" not in given)


def test_vllm_takes_the_model_and_finds_the_shape_that_the_profile_assumes():
    from vllm.config import ModelConfig

    config = ModelConfig(
        model=str(MODEL),
        skip_tokenizer_init=True,
        max_model_len=int(options(SUITE)["--max-model-len"]),
    )
    text = config.hf_text_config
    assert text.num_hidden_layers == 32
    assert (text.num_key_value_heads, config.get_head_size()) == (8, 128)
    assert (text.hidden_size, text.num_attention_heads) == (4096, 32)
    attention = 2 * 4096 * 4096 + 2 * 4096 * 8 * 128
    weights = 32 * (attention + 3 * 4096 * text.intermediate_size) + 2 * text.vocab_size * 4096
    assert weights == pytest.approx(8e9, rel=0.02)
