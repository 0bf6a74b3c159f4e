"""Does `hmas eval run` keep its promises from the command line, in the real simulator?"""

import csv
import json
import subprocess
import sys

import pytest

from evals.requests import azure_files
from tests.command_line import run_hmas

TINY = """\
name = "tiny"
half = "any"
minutes = 0.3
profiles = ["a100_llama_8b"]
loads = [1.5]
arms = ["vllm-fcfs", "fixed-fcfs", "hmas"]
tail_s = 20.0

[[scenarios]]
name = "conv"
trace = "synthetic"

[[scenarios.tenants]]
name = "a"
slo_class = "interactive"
traffic = { rate_rps = 2, prompt = { p50 = 500, p90 = 2000 }, output = { p50 = 99, p90 = 300 } }

[[scenarios.tenants]]
name = "b"
slo_class = "document"
traffic = { rate_rps = 1, prompt = { p50 = 999, p90 = 3000 }, output = { p50 = 99, p90 = 300 } }
"""


@pytest.fixture
def suite(tmp_path, monkeypatch):
    monkeypatch.delenv("HMAS_TRACES", raising=False)
    monkeypatch.setattr(azure_files, "DEFAULT_FOLDER", tmp_path / "none")
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


def run(*args):
    return run_hmas("eval", "run", *args)


def test_the_same_seed_gives_the_same_bytes_whatever_the_jobs(suite, tmp_path):
    first = run(suite, "--json", "--jobs", 2, "--out", tmp_path / "out")
    second = run(suite, "--json", "--jobs", 1)
    assert first.exit_code == second.exit_code == 0, first.output
    assert first.stdout == second.stdout
    document = json.loads(first.stdout)
    assert set(document) == {"suite", "seed", "versions", "results", "config", "git"}
    assert document["config"]["seeds"] == 1
    assert [r["arm"] for r in document["results"]] == ["vllm-fcfs", "fixed-fcfs", "hmas"]
    stock, fixed, _ = document["results"]
    assert fixed["offered_rps"] == stock["offered_rps"]
    assert fixed["charged"]["hook_step_s"] > 0
    assert fixed["attainment"] == pytest.approx(stock["attainment"], abs=0.05)
    for result in document["results"]:
        assert (result["trace"], result["half"]) == ("synthetic tenants", "any")
        assert result["profile"] == "a100_llama_8b"
        assert result["load_counted"] == pytest.approx(1.5, rel=0.05)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"results.json", "results.md", "outcomes.jsonl", "report.html"} <= names
    assert "ledger-conv-1.5x.sqlite" in names
    assert (tmp_path / "out" / "results.json").read_text() == first.stdout


def test_arms_in_hindsight_are_never_below_what_they_choose_from_nor_above_the_bound(suite):
    arms = '"vllm-fcfs", "hindsight-fixed", "hindsight-switching", "sglang-mixed"'
    suite.write_text(TINY.replace('"vllm-fcfs", "fixed-fcfs", "hmas"', arms))
    result = run(suite, "--json", "--minutes", 0.2)
    assert result.exit_code == 0, result.output
    results = json.loads(result.stdout)["results"]
    stock, fixed, switching, _ = results
    assert stock["attainment"] < fixed["attainment"] <= switching["attainment"]
    assert fixed["chosen"]["fixed"].startswith("fixed-")
    assert [r["arm"] for r in results][1:3] == ["hindsight-fixed", "hindsight-switching"]
    assert len({r["bound_rps"] for r in results}) == 1
    for each in results:
        share = each["attainment"] * each["offered_rps"] / each["bound_rps"]
        assert each["bound_share"] == pytest.approx(share, abs=1e-5)
        assert share <= 1.0
        assert each["bound_binding"] in ("load", "compute", "slots", "kv", "pace")


def test_arms_with_parameters_may_be_named_instead_of_the_suites(suite, tmp_path):
    names = ["fixed-mlfq:quantum_s=0.05,levels=4", "fixed-sjf:kappa=0+slack", "fixed-fcfs+slack"]
    out = tmp_path / "out"
    result = run(suite, "--json", "--minutes", 0.2, "--arms", ", ".join(names), "--out", out)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["config"]["arms"] == names
    assert [r["arm"] for r in document["results"]] == names
    _, sjf, fcfs = document["results"]
    assert sjf == {**fcfs, "arm": names[1]}  # with no weight on work it is first come, first served
    rows = csv.DictReader((out / "summary.csv").read_text().splitlines())
    assert [row["arm"] for row in rows] == names
    for name in names:
        assert f"| {name} |" in (out / "results.md").read_text()


def test_an_unknown_arm_is_named_with_those_there_are(suite):
    result = run(suite, "--arms", "fixed-edf,vllm-fifo")
    assert result.exit_code == 2
    said = result.stderr.replace("\n", " ")
    assert "--arms fixed-edf,vllm-fifo: unknown arm 'vllm-fifo'; known: vllm-fcfs" in said


def test_another_trace_takes_the_suites_place_and_bad_lines_are_named(suite, tmp_path):
    trace = tmp_path / "burst.csv"
    header = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type"
    rows = [f"{i},m,{100 + i},20,{120 + i},x" for i in range(40)]
    trace.write_text("\n".join([header, *rows, "oops,m,1,1,2,x", "50,m,5,0,5,x"]))
    suite.write_text(TINY.replace('"fixed-fcfs", "hmas"', '"fixed-edf"'))
    result = run(suite, "--json", "--trace", trace, "--format", "burstgpt")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert "burst.csv (burstgpt, " in document["results"][0]["trace"]
    assert str(tmp_path) not in result.stdout
    assert f"{trace}:42: Timestamp: " in result.stderr.replace("\n", "")
    assert "1 failed requests left out" in result.stderr


def test_the_controllers_configuration_is_refused_before_an_arm_runs(suite, tmp_path):
    config = tmp_path / "mine.toml"
    config.write_text("[twin]\ncandidats = 10\n")
    out = tmp_path / "out"
    result = run(suite, "--config", config, "--out", out)
    assert result.exit_code == 2
    assert result.stderr == (
        f"hmas eval run: {config}:2: twin.candidats: unknown key; did you mean 'candidates'? "
        "there are enabled, candidates, horizon_s, draws, window_s, max_requests, budget_s\n"
    )
    assert not out.exists()


def test_a_trace_of_one_row_is_refused_before_an_arm_runs(suite, tmp_path):
    trace = tmp_path / "one.csv"
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.68,374,44\n")
    result = run(suite, "--trace", trace, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "conv: 1 requests from one.csv: at least" in result.stderr
    assert "lasts" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_of_several_profiles_each_is_a_scenario_with_the_same_traffic(suite):
    two = '["a100_llama_8b", "h200_llama_8b"]'
    suite.write_text(TINY.replace('["a100_llama_8b"]', two).replace(', "fixed-fcfs", "hmas"', ""))
    result = run(suite, "--json")
    assert result.exit_code == 0, result.output
    small, large = json.loads(result.stdout)["results"]
    assert [small["scenario"], large["scenario"]] == ["conv@a100_llama_8b", "conv@h200_llama_8b"]
    assert [small["profile"], large["profile"]] == ["a100_llama_8b", "h200_llama_8b"]
    assert large["capacity_rps"] > 2 * small["capacity_rps"]
    assert small["load"] == large["load"]


def test_a_trace_that_is_not_here_says_how_to_get_it(suite):
    old = TINY.replace('"synthetic"', '"azure-conv"')
    suite.write_text("\n".join(line for line in old.splitlines() if "traffic" not in line))
    result = run(suite)
    assert result.exit_code == 2
    assert "conv: no azure-conv on this machine: `hmas traces fetch` does" in result.stderr


def test_a_format_without_a_trace_is_refused(suite):
    result = run(suite, "--format", "mooncake")
    assert result.exit_code == 2
    assert "--format mooncake: goes with --trace" in result.stderr


def test_a_misspelt_key_of_a_suite_is_answered_by_the_near_one(suite):
    suite.write_text(TINY.replace("loads = ", "load = "))
    result = run(suite)
    assert result.exit_code == 2
    assert "tiny.toml:5: load: unknown key; did you mean 'loads'? there are name, " in result.stderr


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("loads = [1.5]", "loads = [0]", "tiny.toml:5: loads.0: "),
        ('"a100_llama_8b"', '"tpu"', "no 'tpu' in evals/profiles"),
    ],
)
def test_a_broken_suite_is_one_line_and_exit_code_2(suite, old, new, says):
    suite.write_text(TINY.replace(old, new))
    result = run(suite)
    assert result.exit_code == 2
    assert says in result.stderr
    assert "Traceback" not in result.output


def test_live_without_a_server_says_what_to_do(suite, tmp_path):
    token = tmp_path / "token"
    result = run(suite, "--engine", "live", "--token-file", token)
    assert (result.exit_code, "hmas serve" in result.stderr) == (2, True)
    token.write_text("secret")
    url = "http://127.0.0.1:9"
    result = run(suite, "--engine", "live", "--token-file", token, "--url", url)
    assert (result.exit_code, "is the server up?" in result.stderr) == (1, True)
    both = f"{url},http://127.0.0.1:10"
    result = run(suite, "--engine", "live", "--token-file", token, "--url", both)
    assert (result.exit_code, "say it with --through" in result.stderr) == (2, True)
    routed = ("--url", both, "--through", url)
    result = run(suite, "--engine", "live", "--token-file", token, *routed)
    assert (result.exit_code, f"{url}/v1/models" in result.stderr) == (1, True)


def test_a_server_is_started_here_or_not_at_all(suite):
    result = run(suite, "--serve", "--url", "http://gpu-box:8000")
    assert result.exit_code == 2
    assert "--serve wants one like http://127.0.0.1" in result.stderr.replace("\n", " ")


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--server", "sglang=http://h:1"], 2, "--server sglang=http://h:1: goes with --serve"),
        (["--through", "http://h:1"], 2, "--through http://h:1: goes with --engine live"),
        (["--serve", "--server", "hmas=http://h:1"], 2, "--server hmas=http://h:1: 'hmas' is"),
        (["--serve", "--server", "a=http://127.0.0.1:9"], 1, "--server a=http://127.0.0.1:9: /v1"),
    ],
)
def test_a_server_by_url_that_does_not_fit_is_said_before_anything_starts(
    suite, tmp_path, options, code, says
):
    out = tmp_path / "out"
    result = run(suite, *options, "--out", out)
    assert result.exit_code == code
    assert says in result.stderr.replace("\n", " ")
    assert not out.exists()


def test_fetch_without_a_network_exits_1_and_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(azure_files, "SOURCE", "http://127.0.0.1:9")
    result = run_hmas("traces", "fetch", "--dir", tmp_path)
    assert result.exit_code == 1
    assert "HMAS_TRACES" in result.stderr


def test_help_does_not_import_vllm_torch_or_matplotlib():
    code = (
        "import sys, evals.commands\n"
        "print([m for m in ('vllm', 'torch', 'matplotlib', 'langgraph') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
