"""Does one command run a suite on a trace file of the user's own, and say what became of it?"""

import gzip
import json

import pytest

from evals.requests import azure_files
from evals.requests.scenario import NAMED_LINES, TraceFile, build_workload
from evals.suite.suite import load_suite
from tests.command_line import run_hmas

SUITE = """\
name = "mine"
half = "any"
minutes = 10
tail_s = 0
profiles = ["a100_llama_8b"]
loads = [1.2]
arms = ["vllm-fcfs"]

[[scenarios]]
name = "conv"
trace = "azure-conv"

[[scenarios.tenants]]
name = "a"
slo_class = "interactive"

[[scenarios.tenants]]
name = "b"
slo_class = "document"
"""
MOONCAKE = [
    json.dumps(
        {
            "timestamp": 500 * i,
            "input_length": 700 + i,
            "output_length": 20,
            "hash_ids": [0, i + 1],
        }
    )
    for i in range(40)
]
BURST_HEADER = (
    "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type"
)
BURSTGPT = [f"{19440110 + i}.0,,3,ChatGPT,{100 + i},20,{120 + i},API log" for i in range(40)]

MOONCAKE_BROKEN = {
    '{"timestamp": "soon", "input_length": 7, "output_length": 2, "hash_ids": []}': "timestamp: ",
    '{"timestamp": 1, "input_length": "x", "output_length": 2, "hash_ids": []}': "input_length: ",
    '{"timestamp": 1, "input_length": -7, "output_length": 2, "hash_ids": []}': "input_length: ",
    '{"timestamp": 1, "input_length": 7, "hash_ids": []}': "output_length: missing",
    '{"timestamp": 1, "input_length": 7, "output_length": 2, "hash_ids": 3}': "hash_ids: ",
    '{"timestamp": 1, "input_length": 7, "output_length" 2}': "line: not JSON",
    "[1, 7, 2]": "line: expected an object",
    '{"timestamp": 20000, "input_length": 7, "outp': "line: not JSON",
}
BURSTGPT_BROKEN = {
    "soon,,3,ChatGPT,7,2,9,API log": "Timestamp: ",
    "-5,,3,ChatGPT,7,2,9,API log": "Timestamp: ",
    "19440111,,3,ChatGPT,many,2,9,API log": "Request tokens: ",
    "19440111,,3,ChatGPT,7,-2,9,API log": "Response tokens: ",
    "19440111,,3,ChatGPT,7,2,,API log": "Total tokens: ",
    "19440150.0,,3,ChatG": "Request tokens: missing",
}


@pytest.fixture
def suite(tmp_path, monkeypatch):
    monkeypatch.delenv("HMAS_TRACES", raising=False)
    monkeypatch.setattr(azure_files, "DEFAULT_FOLDER", tmp_path / "none")
    path = tmp_path / "mine.toml"
    path.write_text(SUITE)
    return path


def run(*args):
    return run_hmas("eval", "run", *args)


def with_broken(rows, broken, header=()):
    """The rows with a broken line after every third one, the last at the very end, cut off."""
    *between, last = broken
    lines = [*header, *rows]
    for i, line in enumerate(between):
        lines.insert(len(header) + 3 + 4 * i, line)
    return "\n".join([*lines, last])


@pytest.mark.parametrize(
    ("name", "text", "broken"),
    [
        ("mooncake", with_broken(MOONCAKE, MOONCAKE_BROKEN), MOONCAKE_BROKEN),
        ("burstgpt", with_broken(BURSTGPT, BURSTGPT_BROKEN, [BURST_HEADER]), BURSTGPT_BROKEN),
    ],
)
def test_a_file_with_broken_lines_runs_and_each_is_counted_and_named(
    suite, tmp_path, name, text, broken
):
    trace = tmp_path / "mine.txt"
    trace.write_text(text)
    result = run(suite, "--json", "--trace", trace, "--format", name)
    assert result.exit_code == 0, result.output
    said = result.stderr.splitlines()
    for line, what in broken.items():
        where = f"{trace}:{text.splitlines().index(line) + 1}: {what}"
        assert [each for each in said if where in each], where
    assert f"warning: {len(broken)} malformed lines left out" in said
    (case,) = json.loads(result.stdout)["results"]
    assert case["half"] == "any"
    counts = f"40 usable rows, {len(broken)} malformed, 0 failed), 40 from second 0"
    assert case["trace"].startswith(f"mine.txt ({name}, sha256 ")
    assert case["trace"].endswith(counts)
    assert [each for each in said if "mine.txt lasts" in each]


def built(suite, path, name):
    """The workload of the suite's scenario on a trace file, and what was said."""
    said: list[str] = []
    loaded = load_suite(suite)
    file = TraceFile(path, name)
    workload = build_workload(loaded, loaded.scenarios[0], 0, 16_384, file, said.append)
    return workload, said


def test_failed_requests_and_rows_out_of_order_are_counted(suite, tmp_path):
    trace = tmp_path / "mine.csv"
    rows = [BURST_HEADER, *BURSTGPT, "19440100,,0,GPT-4,50,0,50,API log", BURSTGPT[3]]
    trace.write_text("\ufeff" + "\r\n".join(rows), newline="")
    workload, said = built(suite, trace, "burstgpt")
    assert said[:2] == ["1 failed requests left out", "1 rows out of order: sorted by arrival"]
    assert "41 usable rows, 0 malformed, 1 failed), 41 from second 0" in workload.provenance


def test_of_many_malformed_lines_the_first_are_named_and_all_are_counted(suite, tmp_path):
    trace = tmp_path / "mine.jsonl"
    trace.write_text("\n".join(["{}"] * 1000 + MOONCAKE))
    workload, said = built(suite, trace, "mooncake")
    named = [line for line in said if line.startswith(f"{trace}:")]
    assert len(named) == NAMED_LINES >= 10
    assert "1000 malformed lines left out" in said
    assert len(said) < 2 * NAMED_LINES
    assert "40 usable rows, 1000 malformed" in workload.provenance


def test_prompts_of_mooncake_and_of_sessions_share_what_the_trace_says(suite, tmp_path):
    trace = tmp_path / "mine.jsonl"
    trace.write_text("\n".join(MOONCAKE))
    workload, _ = built(suite, trace, "mooncake")
    rows = workload.at_factor(1.0).requests()
    assert [one.prefix for one in rows] == [(0, i + 1) for i in range(40)]
    twice = workload.at_factor(2.0).requests()
    assert len({one.prefix[0] for one in twice}) == 2  # copies of the trace share nothing
    sessions = [f"{i}.0,{i % 2},3,ChatGPT,{600 * (i + 1)},20,{600 * i},log" for i in range(20)]
    trace.write_text("\n".join([BURST_HEADER, *sessions, "21,0,3,GPT-4,1100,9,9,log"]))
    workload, _ = built(suite, trace, "burstgpt")
    *rows, shorter = workload.at_factor(1.0).requests()
    for one, following in zip(rows, rows[2:], strict=False):
        assert following.prefix[: len(one.prefix)] == one.prefix
    assert rows[-1].prefix[0] != rows[-2].prefix[0]
    assert len(rows[-1].prefix) == 20 * 600 // 512
    assert len(shorter.prefix) == 2
    assert shorter.prefix[0] not in (rows[-1].prefix[0], rows[-2].prefix[0])


def test_halves_of_a_file_share_no_row(suite, tmp_path):
    trace = tmp_path / "mine.jsonl"
    trace.write_text("\n".join(MOONCAKE))
    seen = {}
    for half in ("development", "test"):
        suite.write_text(SUITE.replace('"any"', f'"{half}"'))
        rows = built(suite, trace, "mooncake")[0].at_factor(1.0).requests()
        seen[half] = {one.prompt_tokens for one in rows}
    assert not seen["development"] & seen["test"]
    assert len(seen["development"] | seen["test"]) == 40


def test_more_seeds_than_a_file_has_blocks_are_refused(suite, tmp_path):
    trace = tmp_path / "mine.jsonl"
    trace.write_text("\n".join(MOONCAKE))
    suite.write_text("seeds = 3\n" + SUITE.replace("minutes = 10", "minutes = 0.15"))
    result = run(suite, "--trace", trace)
    assert result.exit_code == 2
    assert "conv: 3 seeds are asked for, and this half has 2 blocks of 9 s" in result.stderr


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("azure", "\n".join(MOONCAKE), "TIMESTAMP: column missing"),
        ("burstgpt", "\n".join(MOONCAKE), "Timestamp: column missing"),
        ("mooncake", "\n".join([BURST_HEADER, *BURSTGPT]), "(41 malformed lines, 0 failed)"),
        ("mooncake", "", "no usable request (0 malformed lines, 0 failed)"),
        ("burstgpt", "", "Timestamp: column missing"),
        ("burstgpt", BURST_HEADER, "no usable request (0 malformed lines, 0 failed)"),
        ("mooncake", "\n".join(MOONCAKE_BROKEN), "no usable request (8 malformed lines, 0 failed)"),
        ("mooncake", MOONCAKE[0], "at least 10 are needed to measure capacity"),
        ("mooncake", gzip.compress(b"\n".join([MOONCAKE[0].encode()] * 99))[:-9], "cannot be read"),
    ],
    ids=[
        "wrong-format-azure", "wrong-format-burstgpt", "wrong-format-mooncake", "empty",
        "empty-csv", "header-only", "all-malformed", "one-request", "gzip-cut-off",
    ],
)  # fmt: skip
def test_a_useless_file_is_one_line_and_exit_code_2(suite, tmp_path, name, content, says):
    trace = tmp_path / "mine.txt"
    trace.write_bytes(content if isinstance(content, bytes) else content.encode())
    result = run(suite, "--trace", trace, "--format", name)
    assert result.exit_code == 2
    (error,) = [line for line in result.stderr.splitlines() if line.startswith("hmas eval run: ")]
    assert says in error
    assert "Traceback" not in result.output


def test_of_a_file_in_another_format_the_error_names_the_option(suite, tmp_path):
    trace = tmp_path / "mine.csv"
    trace.write_text("\n".join(MOONCAKE))
    result = run(suite, "--trace", trace)
    assert result.exit_code == 2
    assert "(read as azure: see --format)" in result.stderr


@pytest.mark.parametrize("there", ["folder", "nothing"])
def test_what_is_no_file_is_one_line_and_exit_code_2(suite, tmp_path, there):
    trace = tmp_path / there
    if there == "folder":
        trace.mkdir()
    result = run(suite, "--trace", trace, "--format", "mooncake")
    assert result.exit_code == 2
    assert f"hmas eval run: {trace}: cannot be read: " in result.stderr
    assert "--format" not in result.stderr
