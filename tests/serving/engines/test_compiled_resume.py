"""Does the compiled engine go on from another engine's requests as vLLM's own scheduler does?"""

import os
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.contracts import SLO, ResidentRequest
from serving.engines.compiled import CompiledEngine
from serving.engines.resumed import Begun
from tests.serving.engines.both_engines import (
    SETTINGS,
    Case,
    by_vllm,
    compiled,
    difference,
    drawn,
    machine,
    that_fit,
)
from tests.source_tree import ROOT


@st.composite
def residents(draw: st.DrawFn) -> Begun:
    """A request at any stage: waiting, preempted, computing its prompt (again), or answering."""
    prompt_tokens = draw(st.integers(1, 900))
    output_tokens = draw(st.sampled_from((0, 0, 1, 5, 60)))
    running = draw(st.booleans())
    known = prompt_tokens + output_tokens
    computed = draw(st.one_of(st.just(known - 1), st.integers(0, known - 1))) if running else 0
    admitted_s = draw(st.sampled_from((None, -4.0))) if output_tokens == 0 else -4.0
    first_s = -2.0 if output_tokens else None
    inside = ResidentRequest(
        "live", -9.0, "acme", "batch", SLO(ttft_ms=5000.0), prompt_tokens,
        draw(st.sampled_from((1, 64, 400))), running=running, computed_tokens=computed,
        output_tokens=output_tokens, admitted_s=admitted_s, first_token_s=first_s,
        preemptions=draw(st.integers(0, 2)),
        cached_tokens=0 if running else draw(st.integers(0, prompt_tokens)),
        prefix=tuple(draw(st.lists(st.integers(0, 1), max_size=-(-prompt_tokens // 512)))),
    )  # fmt: skip
    return Begun(inside, output_tokens + draw(st.integers(1, 80)))


@settings(
    max_examples=int(os.environ.get("HMAS_EXAMPLES", "30")), deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
@given(
    begun=st.lists(residents(), min_size=1, max_size=12), kv_blocks=st.integers(20, 300),
    max_active=st.integers(1, 12), caching=st.booleans(), seed=st.integers(0, 1000),
    max_model_len=st.sampled_from((500, 2000)), until_s=st.sampled_from((0.5, 30.0)),
)  # fmt: skip
def test_from_any_residents_it_goes_on_as_vllm_does(
    begun, kv_blocks, max_active, caching, seed, max_model_len, until_s
):
    profile = machine(
        kv_blocks, max_active, 300, prefix_caching=caching, max_model_len=max_model_len
    )
    # One that has grown to `max_model_len` has ended.
    possible = [
        one for one in begun
        if one.inside.prompt_tokens + one.inside.output_tokens < max_model_len
        or one.inside.prompt_tokens + 1 >= max_model_len
    ]  # fmt: skip
    running_first = tuple(sorted(possible, key=lambda one: not one.inside.running))
    later = that_fit(drawn(seed, 10, 5.0, 300, 30, topics=2), profile)
    case = Case(profile, later, until_s=until_s, begun=running_first)
    assert difference(by_vllm(case), compiled(case)) == ""


def test_an_engine_that_has_begun_is_not_resumed():
    engine = CompiledEngine(machine(100, 4, 300), SETTINGS, stock=True)
    engine.run(drawn(1, 3, 5.0, 50, 5))
    with pytest.raises(ValueError, match="once and before run"):
        engine.resume([])


def test_the_compiled_engine_starts_without_vllm():
    """Which takes seconds to import: nothing of a simulated case needs it."""
    code = "import sys, serving.engines.compiled; assert not {'vllm', 'torch'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
