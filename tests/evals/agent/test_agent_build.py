"""Cases from the real simulator: situations as a controller sees them, and their labels."""

from pathlib import Path

import pytest

from evals.agent import build as building
from evals.agent.build import evenly
from evals.agent.labels import Question, answer, label_all
from evals.agent.scenes import Scene, load_case_suite, scenes_of, take
from evals.agent.scoring import balance
from evals.progress import CaseProgress
from evals.suite.toml_file import SuiteError
from hmas_agents.case_file import Candidate, Plan, candidate_key, candidates_of, read_cases
from tests.evals.agent_samples import case

SUITE = Path("evals/cases/scenes_small.toml")
BIG = Path("evals/cases/scenes.toml")
PLAN = Plan(draws=2, seed=5, horizon_s=5.0)


def rewritten(tmp_path, *pairs):
    text = SUITE.read_text()
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "suite.toml"
    path.write_text(text)
    return path


def chat():
    suite = load_case_suite(SUITE)
    return Scene(suite, suite.scenarios[0], 1.6, 1)


@pytest.fixture(scope="module")
def taken():
    return take(chat())


def test_situations_are_what_the_controller_would_see(taken):
    assert taken
    for number, each in enumerate(taken):
        seen = each.situation
        assert each.id == f"chat-1.6x-1-{number}"
        assert (each.split, each.provenance["kind"]) == ("development", "simulated")
        assert seen.snapshot.now_s >= 30.0 + 15.0 * number
        assert 0 < len(seen.served) <= 60
        assert seen.requests[0].arrival_s == 0.0
        assert seen.span_s <= 30.0 + 1e-6
        assert seen.state.load is not None
        assert seen.state.load > 1.0
        queue, batch = seen.snapshot.queue, seen.snapshot.batch
        assert len(seen.inside.requests) == queue.waiting + batch.running


def test_the_same_run_gives_the_same_cases(taken):
    assert take(chat()) == taken


def test_labels_repeat_themselves_and_share_their_futures(taken):
    candidates: tuple[Candidate, ...] = (("edf", {}), ("slide", {"kappa": 40.0}), ("fcfs", {}))
    labels = answer(Question("q", taken[0].situation, candidates, PLAN))
    assert set(labels) == {"edf", "slide:kappa=40", "fcfs"}
    alone = answer(Question("q", taken[0].situation, candidates[:1], PLAN))
    assert alone["edf"] == labels["edf"]
    later = Plan(draws=1, seed=6, horizon_s=5.0)
    second = answer(Question("q", taken[0].situation, candidates[:1], later))
    assert second["edf"][0] == labels["edf"][1]  # a seed is a future, whatever came before it


def test_every_scenario_of_the_suites_can_be_run():
    for path, scenarios, held in ((SUITE, 3, 1), (BIG, 16, 5)):
        suite = load_case_suite(path)
        assert len(suite.scenarios) == scenarios
        assert len(suite.held_out) == held
        for scenario in suite.scenarios:
            assert scenario.trace == "synthetic"
            suite.profile_of(scenario)
        assert len(scenes_of(suite)) == scenarios * len(suite.loads)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('held_out = ["long-answers"]', 'held_out = ["nonsense"]', "held_out: no scenario"),
        ('"fixed-density+slack+serial"', '"hmas"', "arms: 'hmas' is no fixed arm"),
        ("draws = 3", "draws = 0", "draws: Input should be greater than or equal to 1"),
        ('slo_class = "document"', 'slo_class = "nonsense"', "unknown class 'nonsense'"),
        ("twin_draws = 1", 'allow_policies = ["edf", "nonsense"]', "no policy 'nonsense'"),
    ],
)
def test_a_broken_suite_is_named(tmp_path, old, new, told):
    path = rewritten(tmp_path, (old, new))
    with pytest.raises(SuiteError, match=f"^{path}:") as error:
        load_case_suite(path)
    assert told in str(error.value)


def test_runs_take_turns_and_moments_are_spread():
    lengths = {"a": 8, "b": 2, "c": 0}
    runs = [[case(f"{name}{i}") for i in range(count)] for name, count in lengths.items()]
    assert [each.id for each in evenly(runs, 4)] == ["a0", "a5", "b0", "b1"]
    assert [each.id for each in evenly(runs, 6)] == ["a0", "a2", "a5", "a7", "b0", "b1"]
    assert len(evenly(runs, 99)) == 10
    assert evenly(runs, 0) == []


def test_a_case_set_is_built_labelled_and_split(tmp_path, monkeypatch, taken):
    other = [case("x", scenario="long-answers", labels={}, plan=None, twin={})]
    monkeypatch.setattr(building, "_taken", lambda *_: [taken, other])

    def label_all(questions, **_):
        return [{candidate_key(*c): (0.5,) * q.plan.draws for c in q.candidates} for q in questions]

    monkeypatch.setattr(building, "label_all", label_all)
    out = tmp_path / "cases.jsonl.gz"
    with CaseProgress() as progress:
        built = building.build(SUITE, 2, out, (), 1, progress)
    assert read_cases(out) == built
    assert {each.scenario: each.split for each in built} == {
        "chat": "development", "long-answers": "held_out"
    }  # fmt: skip
    for each in built:
        assert each.plan == Plan(draws=3, seed=1000, horizon_s=20.0)
        assert set(each.twin) == {candidate_key(*c) for c in candidates_of(each.allowed)}
        assert all(len(draws) == 1 for draws in each.twin.values())
        assert "commit" in each.provenance
    assert balance(built)["development"]["any"] == 1


def test_each_candidate_meets_the_same_futures(taken):
    question = Question("q", taken[0].situation, (("edf", {}), ("fcfs", {})), PLAN)
    with CaseProgress() as progress:
        (labels,) = label_all([question], jobs=1, progress=progress)
    assert labels == answer(question)
    assert {key: len(shares) for key, shares in labels.items()} == {"edf": 2, "fcfs": 2}
