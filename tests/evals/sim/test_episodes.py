"""Do words act at their minute, on all arms the same arrivals, and as they were understood?"""

import pytest

from evals.arms import run_case
from evals.arms.engine import build_simulated
from evals.machines.profile_file import PROFILES
from evals.requests.scenario import build_workload
from evals.sim.suite_run import RunOptions, cases_of, finish
from evals.suite.arms import ControllerOptions
from evals.suite.suite import load_suite
from hmas_agents.intent.change import Change
from serving.contracts import Contract
from tests.evals.small_cases import MACHINE

SUITE = """\
name = "small"
half = "test"
minutes = 1
warmup_s = 6
tail_s = 10
loads = [1.2]
arms = ["start", "hmas", "words-taught", "words-exact", "in-advance"]
settings.contract.tenants = { a = {}, b = {} }
settings.contract.classes.batch = { e2e_ms = 20000, sheddable = true }

[[tenants]]
name = "a"
slo_class = "interactive"
traffic = { rate_rps = 3, prompt = { p50 = 400, p90 = 1500 }, output = { p50 = 20, p90 = 60 } }

[[tenants]]
name = "b"
slo_class = "batch"
traffic = { rate_rps = 1, prompt = { p50 = 600, p90 = 1500 }, output = { p50 = 20, p90 = 60 } }

[[scenarios]]
name = "one"
trace = "synthetic"

[[scenarios.words]]
at = 0.4
since = 0.2
now = "13:59"
texts = ["a first", "protect a"]
means = [{ kind = "weight", tenant = "a", factor = 3 }]

[[scenarios.words]]
at = 0.4
now = "13:59"
texts = ["more of b, then batch out", "batch out at 14:00"]
means = [
  { kind = "expect", tenant = "b", factor = 2, until = "14:00" },
  { kind = "shed", slo_class = "batch", share = 1, from = "14:00", for_min = 9 },
]
wanted = [{ kind = "weight", slo_class = "batch", factor = 0.1, from = "14:00" }]
"""
TICK_S = 2.0
MEANT = Change(kind="weight", tenant="a", factor=3)


@pytest.fixture
def suite(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(SUITE)
    return load_suite(path)


def cases(suite, read=(), *, seed=0):
    """By arm, where `words-taught` has understood `read` of each text."""
    workload = build_workload(suite, suite.scenarios[0], seed, MACHINE.max_model_len)
    readings = {
        (text, words.now): tuple(read) if isinstance(read, list) else words.means
        for words in workload.spec.words
        for text in words.texts
    }
    options = RunOptions(1, ControllerOptions(), readings={"words-taught": readings})
    return {one.arm.name: one for one in cases_of(suite, workload, MACHINE, options, 15.0)}


def followed(case):
    """Its run, and (when, which) of the contracts that it put in force."""
    given: list[tuple[float, Contract]] = []

    def build(*machine):
        engine = build_simulated(*machine)
        apply = engine.apply_contract

        def noted(change):
            given.append((engine.now(), change.contract))
            return apply(change)

        engine.apply_contract = noted  # type: ignore[method-assign]
        return engine

    return run_case(case, build), given


def weights(contract):
    return {name: terms.weight for name, terms in contract.tenants.items()}


def test_every_arm_sees_the_same_arrivals_and_is_weighed_by_the_same(suite):
    arms = cases(suite)
    assert len({id(one.requests) for one in arms.values()}) == 1
    assert all(one.wanted == arms["hmas"].wanted for one in arms.values())
    assert [bool(one.said) for one in arms.values()] == [False, False, True, True, True]


def test_what_is_wanted_is_so_from_when_it_is_so_until_its_end(suite):
    wanted = cases(suite)["hmas"].wanted
    # Six seconds of warm-up, then a minute: `since` 0.2 of it, and 14:00 a minute after 0.4.
    assert [at_s for at_s, _ in wanted] == pytest.approx([0.0, 18.0, 90.0])
    assert [weights(contract)["a"] for _, contract in wanted] == [1.0, 3.0, 3.0]
    assert [one.weight_of("b", "batch") for _, one in wanted] == [1.0, 1.0, 0.1]


def test_words_are_said_at_their_time_and_in_advance_all_is_known(suite):
    arms = cases(suite)
    exact, advance = (arms[name].said for name in ("words-exact", "in-advance"))
    assert [one.at_s for one in exact] == [30.0, 30.0]
    assert [one.at_s for one in advance] == [0.0, 0.0]
    times = [[(c.from_s, c.until_s) for c in said.changes] for said in exact]
    assert times == [[(30.0, None)], [(30.0, 90.0), (90.0, 630.0)]]
    assert [c.from_s for said in advance for c in said.changes] == [18.0, 30.0, 90.0]


def test_halves_share_no_text_and_seeds_take_turns(suite):
    def texts(half):
        seeds = [cases(suite.model_copy(update={"half": half}), seed=seed) for seed in (0, 1)]
        return {one.text for case in seeds for one in case["words-exact"].said}

    assert texts("development") == {"a first", "more of b, then batch out"}
    assert texts("test") == {"protect a", "batch out at 14:00"}
    assert len(texts("any")) == 4


def test_a_change_acts_at_its_minute(suite):
    arms = cases(suite)
    for arm, due_s in (("words-exact", 30.0), ("in-advance", 18.0)):
        run, given = followed(arms[arm])
        acted = [(at_s, weights(one)) for at_s, one in given if at_s < arms[arm].span.until_s]
        (at_s, then), *_ = acted
        assert due_s <= at_s < due_s + TICK_S + 0.5
        assert then == {"a": 3.0, "b": 1.0}
        assert all(o.finish != "rejected" for o in run.outcomes)  # nothing is shed before 14:00


def test_shedding_begins_at_its_minute(suite):
    sooner = suite.model_copy(update={"minutes": 2.0, "tail_s": 60.0})
    exact = cases(sooner)["words-exact"]
    refused = [o for o in run_case(exact).outcomes if o.finish == "rejected"]
    assert {o.slo_class for o in refused} == {"batch"}
    assert 114.0 <= min(o.arrival_s for o in refused) < 114.0 + TICK_S + 0.5


def test_a_model_that_reads_all_exactly_is_words_exact(suite):
    arms = cases(suite)
    taught, exact, untold = (run_case(arms[n]) for n in ("words-taught", "words-exact", "hmas"))
    assert taught.outcomes == exact.outcomes
    assert taught.decisions == exact.decisions
    assert exact.outcomes != untold.outcomes


def test_what_is_not_understood_does_nothing(suite):
    arms = cases(suite, [])
    assert run_case(arms["words-taught"]).outcomes == run_case(arms["hmas"]).outcomes


def test_a_wrong_reading_changes_only_what_it_says(suite):
    wrong = Change(kind="weight", tenant="b", factor=2)
    arms = cases(suite, [wrong])
    assert arms["words-taught"].wanted == arms["words-exact"].wanted
    _, given = followed(arms["words-taught"])
    (_, contract), *_ = given
    (_, right), *_ = followed(arms["words-exact"])[1]
    assert weights(contract) == {"a": 1.0, "b": 2.0}
    changed = {"tenants": {**contract.tenants, "a": right.tenants["a"], "b": right.tenants["b"]}}
    assert contract.model_copy(update=changed) == right


def test_targets_that_words_have_changed_are_not_what_is_promised(suite):
    eased = Change(kind="slo_scale", slo_class="interactive", factor=9)
    arms = cases(suite, [eased])
    run = run_case(arms["words-taught"])
    assert {o.slo.ttft_ms for o in run.outcomes if o.tenant == "a"} == {500.0}
    late = [o for o in run.outcomes if o.ttft_s is not None and o.ttft_s > 0.5 and o.tenant == "a"]
    assert late
    assert not any(o.met for o in late)


def test_results_say_how_those_fared_that_words_were_about(suite):
    case = cases(suite)["start"]
    result, _ = finish(case)
    counted = [o for o in run_case(case).outcomes if case.span.counts(o.arrival_s)]
    # Words are about tenant a, tenant b and all of batch: there are no others.
    assert set(result["attainment_by_words"]) == {"named"}
    worth = [(3.0 if o.tenant == "a" and o.arrival_s >= 17.5 else 1.0, o.met) for o in counted]
    by_weight = sum(w for w, met in worth if met) / sum(w for w, _ in worth)
    assert result["attainment_weighted"] == pytest.approx(by_weight)
    assert result["attainment_weighted"] != pytest.approx(result["attainment"])


def test_the_suite_of_words_asks_nothing_impossible_and_traffic_changes_when_said():
    suite = load_suite(PROFILES.parent / "suites" / "words.toml")
    for scenario in suite.scenarios:
        assert scenario.words
        assert all(len(words.texts) == 8 for words in scenario.words)
    launch = suite.scenarios[0]
    span = suite.span(launch)
    said, change = launch.words[0], launch.changes[0].change(span)
    assert said.said_s(span) + 60.0 == pytest.approx(change.from_s, abs=0.1)
