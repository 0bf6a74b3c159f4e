"""Are the GPU suites what a server can run, and are server and twin of one size?"""

from itertools import pairwise
from pathlib import Path

import pytest

from evals.machines.profile_file import load_profile
from evals.requests.stand_in import synthetic_stand_in
from evals.suite.arms import parse_arm
from evals.suite.suite import load_suite

SUITE = Path("evals/suites/gpu.toml")
FIDELITY = Path("evals/checks/fidelity/gpu_suite.toml")
MODEL = Path("evals/models/llama_8b_shape")


def options(path):
    return dict(pairwise(load_suite(path).server))


def test_every_arm_can_be_put_on_a_server():
    kinds = {parse_arm(arm).kind for arm in load_suite(SUITE).arms}
    assert kinds == {"stock", "fixed", "hmas"}


def test_the_fidelity_suite_has_the_same_server_and_traffic_and_arms_that_stay_as_they_are():
    suite, fidelity = load_suite(SUITE), load_suite(FIDELITY)
    assert fidelity.server == suite.server
    assert fidelity.settings == suite.settings
    ours, theirs = suite.scenarios[0], fidelity.scenarios[0]
    assert (ours.trace, ours.requests, ours.load_by) == (
        theirs.trace,
        theirs.requests,
        theirs.load_by,
    )
    assert {parse_arm(arm).kind for arm in fidelity.arms} == {"stock", "fixed"}


def test_the_server_is_started_with_the_sizes_of_the_profile():
    profile, given = load_profile(load_suite(SUITE).profile), options(SUITE)
    assert int(given["--max-model-len"]) == profile.max_model_len
    assert int(given["--max-num-seqs"]) == profile.max_active_requests
    assert int(given["--max-num-batched-tokens"]) == profile.token_budget
    assert profile.prefix_caching == ("--no-enable-prefix-caching" not in given)


def test_a_case_is_three_to_five_minutes_of_traffic_at_every_load():
    (scenario,) = load_suite(SUITE).scenarios
    assert scenario.load_by == "thinning"  # the trace's own clock, whatever the load
    rows = synthetic_stand_in(scenario.trace, seed=1)[: scenario.requests]
    assert 180 <= rows[-1].arrival_s - rows[0].arrival_s <= 300


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
