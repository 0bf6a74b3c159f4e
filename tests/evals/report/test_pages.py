"""Does every number of a page come from its summary, and does the page say where H-MAS loses?"""

import json

import pytest

from evals.report.files import write_tables
from evals.report.pages import (
    BEGIN,
    END,
    README,
    PageError,
    answer,
    losses,
    page_of,
    pages_of,
    read_evidence,
    with_evidence,
)
from tests.command_line import run_hmas
from tests.evals.load_samples import runs

MET = {"vllm-fcfs": (0.9, 0.4), "vllm-tuned": (0.95, 0.5), "hmas": (0.9, 0.75)}
RUN = {
    "suite": "steady", "versions": {"vllm": "0.32.0"}, "git": {"commit": "abc", "dirty": False},
    "config": {"question": "Does it pay?", "description": "Chats.", "caveats": ["Simulated."]},
    "sources": ["steady: trace: t"],
}  # fmt: skip


def evidence(folder, met=MET, run=RUN, name="steady", **more):
    (folder / name).mkdir()
    results = runs(met, seeds=(0, 1, 2), loads=(0.8, 1.5), scenario="chats", **more)
    write_tables(results, folder / name)
    (folder / name / "run.json").write_text(json.dumps(run))
    return read_evidence(folder)


def test_the_answer_is_goodput_over_stock_and_over_the_best_baseline(tmp_path):
    (steady,) = evidence(tmp_path)
    below, above = answer(steady)
    assert "is 1.00 times that of stock vLLM, and 0.95 times that of the best baseline" in below
    assert "is 1.88 times that of stock vLLM, and 1.50 times that of the best baseline" in above


def test_where_it_loses_is_named_and_references_are_no_losses(tmp_path):
    (steady,) = evidence(tmp_path, {**MET, "clairvoyant": (0.99, 0.9), "rules-only": (0.9, 0.8)})
    assert [row[1:3] for row in losses(steady).rows] == [
        ["0.8x", "vllm-tuned"], ["1.5x", "rules-only"]
    ]  # fmt: skip


def test_nowhere_is_said_too(tmp_path):
    (steady,) = evidence(tmp_path, {"vllm-fcfs": (0.8, 0.4), "hmas": (0.9, 0.7)})
    assert losses(steady).rows[0][0] == "nowhere"


def test_a_page_has_question_answer_table_conditions_caveats_in_this_order(tmp_path):
    text = page_of(*evidence(tmp_path))
    order = ["**Question.** Does it pay?", "**Answer.**", "## Where it loses", "## Goodput in",
             "## Conditions", "## Caveats", "- Simulated."]  # fmt: skip
    places = [text.index(part) for part in order]
    assert places == sorted(places)


def test_the_readme_table_is_made_from_the_same_and_needs_its_marks(tmp_path):
    every = evidence(tmp_path)
    text = with_evidence(f"a\n{BEGIN}\nold\n{END}\nb", every)
    assert "old" not in text
    assert "| [steady](evals/results/steady.md) | 1.5x | 75.0% (75.0 to 75.0) | 1.88x" in text
    assert with_evidence(text, every) == text
    with pytest.raises(PageError, match=r"README\.md: lacks"):
        with_evidence("none", every)


def test_runs_of_two_commits_give_no_pages(tmp_path):
    evidence(tmp_path)
    with pytest.raises(PageError, match="several commits"):
        evidence(tmp_path, run={**RUN, "git": {"commit": "def"}}, name="drift")


def test_a_live_run_has_its_own_commit_and_its_page_says_how_it_was_started(tmp_path):
    evidence(tmp_path)
    git, sources = {"commit": "def", "dirty": False}, ["chats: engine: live served"]
    live = {**RUN, "git": git, "sources": sources}
    pages = {each.name: page_of(each) for each in evidence(tmp_path, run=live, name="live")}
    assert "evals/suites/live.toml --serve --out" in pages["live"]
    assert "Commit def" in pages["live"]
    assert "--serve" not in pages["steady"]


def test_a_run_about_words_says_what_they_are_worth_and_stands_for_itself(tmp_path):
    evidence(tmp_path)
    run = {**RUN, "git": {"commit": "def", "dirty": False}}
    about = {"attainment_by_words": {"named": 0.9, "others": 0.6}, "goodput_weighted_rps": 3.0}
    told = {"vllm-fcfs": (0.9, 0.4), "hmas": (0.9, 0.75), "in-advance": (0.9, 0.8)}
    every = evidence(tmp_path, told, run, "words", **about)
    lines = answer(*[each for each in every if each.name == "words"])
    assert "over H-MAS that hears nothing: 1.00x" in lines[0]
    assert "`in-advance`: chats 90.0% (90.0 to 90.0) and 60.0%" in lines[1]
    assert "[words]" not in pages_of(every)[README]
    with pytest.raises(PageError, match="several commits"):
        evidence(tmp_path, told, {**RUN, "git": {"commit": "efg"}}, "weights", **about)


def test_a_run_without_its_summary_is_named(tmp_path):
    evidence(tmp_path)
    (tmp_path / "steady" / "summary.csv").unlink()
    with pytest.raises(PageError, match="steady"):
        read_evidence(tmp_path)


def test_the_pages_of_this_project_say_what_their_summaries_say():
    result = run_hmas("eval", "pages", "--check")
    assert result.exit_code == 0, result.stderr
