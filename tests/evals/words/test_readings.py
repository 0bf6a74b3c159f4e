"""Is what readers understand of a suite's texts kept, and what cannot be done left out?"""

import pytest

from evals.suite.suite import load_suite
from evals.words.readings import readings_for, texts_of
from hmas_agents.intent.change import Change, ChangeError
from tests.command_line import run_hmas

SUITE = """\
name = "small"
half = "test"
minutes = 1
loads = [1]
arms = ["hmas", "words-grammar", "words-taught", "words-exact"]
settings.contract.tenants = { acme = {}, bolt = {} }

[[scenarios]]
name = "one"
trace = "synthetic"

[[scenarios.tenants]]
name = "acme"
slo_class = "interactive"
traffic = { rate_rps = 1, prompt = { p50 = 9, p90 = 99 }, output = { p50 = 9, p90 = 99 } }

[[scenarios.words]]
at = 0.5
now = "09:00"
texts = ["protect acme", "acme first", "shed all of batch", "who is that?"]
means = [{ kind = "weight", tenant = "acme", factor = 3 }]
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(SUITE)
    return path


def test_a_grammar_reads_here_and_what_cannot_be_done_or_is_asked_back_does_nothing(file, tmp_path):
    suite = load_suite(file)
    kept = tmp_path / "kept.jsonl"
    kept.write_text("".join(
        f'{{"reader": "taught", "text": "{case.text}", "now": "09:00", "changes": []}}\n'
        for case in texts_of(suite)
    ))  # fmt: skip
    read = readings_for(suite, kept)
    assert set(read) == {"words-grammar", "words-taught"}
    meant = (Change(kind="weight", tenant="acme", factor=3),)
    assert list(read["words-grammar"].values()) == [meant, meant, (), ()]  # batch is not sheddable
    assert list(read["words-taught"].values()) == [(), (), (), ()]


def test_the_command_keeps_what_was_read_and_an_arm_reads_it_again(file, tmp_path):
    kept = tmp_path / "kept.jsonl"
    result = run_hmas(
        "eval", "words", "--contender", "grammar", "--cases", file, "--readings", kept
    )
    assert result.exit_code == 0, result.output
    kept.write_text(kept.read_text().replace('"reader": "grammar"', '"reader": "taught"'))
    read = readings_for(load_suite(file), kept)
    assert read["words-taught"] == read["words-grammar"]


def test_readings_that_are_missing_or_broken_are_said_with_the_command(file, tmp_path):
    kept = tmp_path / "kept.jsonl"
    suite = load_suite(file)
    with pytest.raises(ChangeError, match=r"No such file.*words-taught needs it: `hmas eval words"):
        readings_for(suite, kept)
    kept.write_text('{"reader": "taught"}\n')
    with pytest.raises(ChangeError, match="make it again"):
        readings_for(suite, kept)
    kept.write_text("")
    with pytest.raises(ChangeError, match="taught has not read 'protect acme'"):
        readings_for(suite, kept)
