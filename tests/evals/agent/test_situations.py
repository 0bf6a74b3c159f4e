"""Is the truth what the engine then does, do learners learn, and what does the page say?"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evals.agent import situation_run
from evals.agent.learners import Learnt, Seen
from evals.agent.namers import BEST, IN_FORCE, NAMED, NEIGHBOURS, OWN, TREE, Chosen, twin_name
from evals.agent.situation_run import Found, run_situations, seen_of
from evals.agent.situation_scores import document, page, regret
from evals.agent.situations import MOMENTS, SETTINGS, Row, Truth, candidate_of, rows_of
from evals.arms.engine import build_simulated
from evals.arms.steering import Steering
from evals.arms.switching import STATES
from evals.progress import CaseProgress
from evals.suite.arms import parse_arm
from evals.suite.shapes import Span
from evals.suite.suite import load_suite
from evals.suite.toml_file import SuiteError
from hmas_agents.config import Config
from hmas_agents.engine_watch import EngineWatch
from hmas_agents.lateness import first_token_is_late
from hmas_agents.twin.question import Candidate
from serving.engines.offered import longest_answer
from tests.evals.in_process import InProcess
from tests.evals.small_cases import case, workload

STORED = Path("evals/results/situations/situations.json")
START = SETTINGS[10]
SMOKE = Path("evals/suites/smoke.toml")


def small(seed=0):
    """Two minutes of traffic a little above capacity, half a minute of which counts."""
    one = case("start", workload(1600, 16.0, seed=7 + seed), seed=seed)
    return replace(one, span=Span(30.0, 10.0, 80.0))


@pytest.fixture(scope="module")
def rows():
    return rows_of((small(), None))


def test_the_truth_is_what_the_engine_then_does():
    requests = workload(700, 14.0)
    one = replace(case("start", requests), span=Span(30.0, 10.0, 80.0))
    engine = build_simulated(one.profile, one.settings, False)
    watch = EngineWatch(engine, Config(), None)
    Steering(engine, one.profile, "test").put_in_force(parse_arm(SETTINGS[4]), "for the test")
    seen: list[Any] = []

    def look():
        watch.look()
        if engine.now() >= 20.0 and not seen:
            situation = watch.situation()
            stay = Candidate(situation.snapshot.policy, dict(situation.snapshot.params))
            truth = Truth(one, situation, longest_answer(requests))
            seen.append((situation, truth.worth(stay)))

    outcomes = engine.run(requests, ((2.0, look),))
    (situation, worth), now_s = seen[0], seen[0][0].snapshot.now_s
    late = {
        r.request_id for r in situation.inside.requests
        if first_token_is_late(r.slo, r.arrival_s, r.first_token_s, now_s)
    }  # fmt: skip
    inside = {r.request_id for r in situation.inside.requests} - late
    counted = [o for o in outcomes if o.arrival_s > now_s or o.request_id in inside]
    met = sum(o.met for o in counted) / len(counted)
    assert 0.3 < met < 0.99
    assert worth == pytest.approx(met, abs=1.5 / len(counted))


def test_situations_come_again_by_seed_and_differ_in_what_is_in_force(rows):
    assert rows_of((small(), None)) == rows
    assert len(rows) == MOMENTS
    assert rows[0].in_force == "fixed-edf:kappa=3+slack+serial+triage"  # what H-MAS starts with
    assert rows[1].in_force in SETTINGS
    for row in rows:
        assert set(row.states) == set(STATES)
        assert row.best == max(row.worths)
        assert min(row.worths) < row.best <= 1.0


def test_every_contender_chooses_and_nobody_beats_the_best(rows):
    learnt = Learnt.of(seen_of([*rows, *(replace(row, seed=1) for row in rows)]))
    found = rows_of((small(), learnt))
    assert [row.worths for row in found] == [row.worths for row in rows]
    names = {twin_name(own) for own in OWN}
    names |= {twin_name(32, namer) for namer in (TREE, NEIGHBOURS, BEST)}
    for row in found:
        assert names < set(row.chosen)
        assert not row.chosen[IN_FORCE].changed
        assert all(one.worth <= row.best for one in row.chosen.values())
        tried = [row.chosen[twin_name(own)].tried for own in OWN]
        assert 1 < tried[0] <= 9
        assert tried == sorted(tried)
        assert row.chosen[twin_name(32, NEIGHBOURS)].tried <= 33 + NAMED


def planted(seeds=4, per_seed=30):
    """Where more than 20 wait the first of three settings is best, else the last."""
    rng = np.random.default_rng(1)
    states = rng.random((seeds * per_seed, len(STATES)))
    waiting = STATES.index("waiting")
    states[:, waiting] = rng.integers(0, 41, len(states))
    busy = states[:, waiting] > 20
    worths = np.where(busy[:, None], [0.9, 0.6, 0.2], [0.3, 0.6, 0.95])
    return Seen(states, worths, np.repeat(np.arange(seeds), per_seed), ("a", "b", "c"))


@pytest.mark.parametrize(("waiting", "best"), [(35.0, "a"), (3.0, "c")])
def test_tree_and_neighbours_find_what_is_planted(waiting, best):
    learnt = Learnt.of(planted())
    states = dict.fromkeys(STATES, 0.5) | {"waiting": waiting}
    assert learnt.tree.ranked(states) == [best]
    assert learnt.neighbours.ranked(states)[0] == best
    assert set(learnt.neighbours.ranked(states)) == {"a", "b", "c"}
    assert learnt.best_fixed in {"a", "c"}


def test_a_setting_is_tried_with_its_rules_and_no_others():
    engine = build_simulated(small().profile, small().settings, False)
    Steering(engine, small().profile, "test").put_in_force(
        parse_arm("fixed-edf+slack+triage"), "for the test"
    )
    tried = candidate_of("fixed-srpt+slack+serial", engine.snapshot())
    assert tried.policy == "srpt"
    engine = build_simulated(small().profile, small().settings, False)
    Steering(engine, small().profile, "test").put_in_force(
        parse_arm("fixed-srpt+slack+serial"), "for the test"
    )
    limits = engine.snapshot().limits
    assert all(getattr(limits, name) == value for name, value in tried.limits.items())
    assert candidate_of("fixed-srpt+slack+serial", engine.snapshot()).limits == {}


def row_with(seed, best_named, by_tree=0.0):
    """One where the twin alone loses 4 points, and so much less with the best or the tree's named.

    The neighbours' takes off 1 point less than the tree's.
    """
    worths = {IN_FORCE: 0.8, **{twin_name(own): 0.86 for own in OWN}}
    takes = {TREE: by_tree, NEIGHBOURS: by_tree - 1.0, BEST: best_named}
    worths |= {twin_name(32, namer): 0.86 + each / 100 for namer, each in takes.items()}
    chosen = {name: Chosen(worth, name != IN_FORCE, 0.4, 9) for name, worth in worths.items()}
    return Row("chat", 1.2, seed, 120.0, START, dict.fromkeys(STATES, 0.5), (0.8, 0.9), 0.9, chosen)


def said(gains, by_tree):
    suite = load_suite(SMOKE)
    kept = {
        seed: situation_run.Kept("abc", 4, ("made up",), (row_with(seed, *each),))
        for seed, each in enumerate(zip(gains, by_tree, strict=True))
    }
    return document([Found(suite, Learnt.of(planted()), 120, kept)], START, 4)


CLEAR, NOISE = [3.0, 3.1, 2.9, 3.0], [2.0, -1.5, 1.8, -1.2]


def test_the_page_says_plainly_what_a_model_could_add():
    found = said(CLEAR, [1.0, 1.0, 1.0, 1.0])
    assert found["named"][BEST]["less"]["mean"] == pytest.approx(3.0)
    assert found["named"][TREE]["left"]["mean"] == pytest.approx(2.0)
    assert found["named"][NEIGHBOURS]["less"]["mean"] == pytest.approx(0.0, abs=1e-6)
    assert found["contenders"][0]["regret"]["all"]["mean"] == pytest.approx(10.0)
    text = page(found)
    assert "loses 3.00 (2.87 to 3.13) less with the truly best named" in text
    assert "A model that knows more could add 2.00 (1.87 to 2.13)." in text
    assert "At most what tree and neighbours leave" in text
    assert "It adds nothing here" not in text


@pytest.mark.parametrize(
    ("best", "by_tree", "reason"),
    [
        ([0.2, 0.3, 0.2, 0.3], [0.0] * 4, "Naming settings adds less than half a point"),
        (CLEAR, [2.9, 3.0, 2.8, 2.9], "0.10 (0.10 to 0.10): less than half a point"),
    ],
)
def test_the_page_says_plainly_that_a_model_adds_nothing(best, by_tree, reason):
    text = page(said(best, by_tree))
    assert reason in text
    assert "It adds nothing here" in text


def test_what_chance_explains_is_open_and_not_nothing():
    text = page(said(NOISE, [-1.0, 1.0, -0.9, 0.8]))
    assert "they are too few to say so of others" in text
    assert "It adds nothing here" not in text


def test_three_seeds_make_nothing_sure():
    assert "It adds nothing here" not in page(said(CLEAR[:3], [2.9, 3.0, 2.8]))


def test_regret_is_points_below_the_best():
    assert regret(row_with(0, 1.0), IN_FORCE) == pytest.approx(10.0)


@pytest.fixture
def in_process(monkeypatch):
    """The run without worker processes, of small cases in place of the suite's; what was run."""
    ran: list[tuple[int, bool]] = []

    class Workers(InProcess):
        def run(self, function, items, title, line):
            del function, title, line
            ran.extend((one.seed, learnt is not None) for one, learnt in items)
            return [[replace(row_with(one.seed, 1.0), worths=(0.5,) * len(SETTINGS))]
                    for one, _ in items]  # fmt: skip

    monkeypatch.setattr(situation_run, "Workers", Workers)
    monkeypatch.setattr(
        situation_run, "all_cases", lambda _, suite, *rest: [small(suite.every_seed[0])]
    )
    return ran


def test_a_larger_run_goes_on_from_a_smaller_one(in_process, tmp_path):
    suites, progress = [load_suite(SMOKE)], CaseProgress()
    run_situations(suites, 1, 2, tmp_path, 1, progress)
    assert in_process == [(0, False), (1, False), (0, True)]
    in_process.clear()
    found = run_situations(suites, 3, 2, tmp_path, 1, progress)
    assert in_process == [(1, True), (2, True)]
    assert set(found[0].by_seed) == {0, 1, 2}
    in_process.clear()
    run_situations(suites, 1, 3, tmp_path, 1, progress)  # learnt from more: chosen anew
    assert in_process == [(2, False), (0, True)]


def test_a_file_that_cannot_be_read_is_named(in_process, tmp_path):
    (tmp_path / "smoke-development-0.json").write_text("{")
    with pytest.raises(SuiteError, match=r"smoke-development-0\.json.*delete it"):
        run_situations([load_suite(SMOKE)], 1, 2, tmp_path, 1, CaseProgress())

def test_the_published_page_is_made_of_the_stored_figures():
    stored = json.loads(STORED.read_text())
    assert STORED.parent.with_suffix(".md").read_text() == page(stored)
