"""Scores of hand-made answers: regret, accuracy, validity, position bias."""

from dataclasses import replace

import pytest

from evals.agent import contenders
from evals.agent.contenders import Answer, Asked, rotated
from evals.agent.eval_agent import fixed_choices
from evals.agent.scoring import balance, is_right, missing, regret_of, score
from hmas_agents.case_file import Labels
from tests.evals.agent_samples import case, situation


def asked(choice, options=("fcfs", "edf", "slide"), **changes):
    base = Asked(options, choice and (choice, {}), "because", (), 0.5, 400)
    return replace(base, **changes)


def test_regret_is_what_the_best_label_has_more():
    assert regret_of(case(), ("fcfs", {})) == pytest.approx(0.905 - 0.55)
    assert regret_of(case(), ("slide", {})) == 0.0


def test_parameters_may_be_what_is_best():
    better = case(labels={**case().labels, "slide:kappa=40": (0.95, 0.96)})
    assert regret_of(better, ("slide", {"kappa": 40.0})) == 0.0
    assert regret_of(better, ("slide", {})) == pytest.approx(0.05)


def test_what_the_labels_cannot_tell_from_the_best_is_right():
    labels: Labels = {"slide": (0.90, 0.90, 0.90), "edf": (0.90, 0.91, 0.80), "fcfs": (0.8,) * 3}
    assert is_right(labels, ("slide", {}))
    assert is_right(labels, ("edf", {}))  # once better, once worse
    assert not is_right(labels, ("fcfs", {}))  # worse in every future
    assert is_right({"slide": (0.9,), "edf": (0.896,)}, ("edf", {}))  # half a point
    assert not is_right({"slide": (0.9,), "edf": (0.89,)}, ("edf", {}))


def test_a_scenario_with_many_cases_counts_once():
    many = [Answer(case(f"a{i}", scenario="easy"), (("slide", {}),)) for i in range(9)]
    one = Answer(case("b", scenario="hard"), (("fcfs", {}),))
    scored = score("x", "development", [*many, one])
    assert (scored.cases, scored.scenarios, scored.regret.n) == (10, 2, 2)
    assert scored.regret.mean == pytest.approx((0 + 0.355) / 2)
    assert scored.regret.low < 0 < 0.355 < scored.regret.high  # two scenarios say little
    assert scored.accuracy == pytest.approx(0.9)
    assert scored.validity is None


def test_replies_are_scored_by_use_order_and_cost():
    steady = Answer(
        case("a"),
        (("slide", {}), ("slide", {})),
        (asked("slide"), asked("slide", ("slide", "fcfs", "edf"))),
    )
    biased = Answer(
        case("b"),
        (("fcfs", {}), ("slide", {})),
        (asked("fcfs"), asked("slide", ("slide", "fcfs", "edf"), latency_s=1.5, tokens=600)),
    )
    lost = Answer(
        case("c"),
        (("edf", {}), ("edf", {})),
        (asked(None, faults=("reply_invalid: x",)), asked(None, faults=("reply_invalid: y",))),
    )
    scored = score("model", "development", [steady, biased, lost])
    assert scored.validity == pytest.approx(4 / 6)
    assert scored.steady == pytest.approx(1 / 3)  # one answer that never was one is not steady
    assert scored.first_listed == pytest.approx(3 / 4)
    assert (scored.options, scored.latency_s, scored.faults) == (3, 0.5, {"reply_invalid": 2})
    assert scored.tokens == pytest.approx((5 * 400 + 600) / 6)


def test_replies_from_a_cassette_have_no_latency():
    answer = Answer(case(), (("slide", {}),), (asked("slide", latency_s=None),))
    assert score("model", "development", [answer]).latency_s is None


def test_choices_without_a_label_are_named_once():
    choice = ("slide", {"kappa": 40.0})
    answers = [Answer(case("a"), (choice, ("edf", {}), choice)), Answer(case("b"), (choice,))]
    assert missing(answers) == {"a": (choice,), "b": (choice,)}


def test_contenders_that_need_no_model():
    overload = case(situation=situation(load=1.0), allowed=("fcfs", "edf", "slide"))
    assert contenders.rules(overload).choices == (("edf", {"kappa": 3.0}),)
    assert contenders.rules(case(allowed=("fcfs", "slide"))).choices == (("edf", {}),)  # stays
    assert contenders.stay(overload).choices == (("edf", {}),)
    assert contenders.twin(overload).choices == (("edf", {}),)
    chance = score("random", "development", [contenders.chance(overload)])
    assert chance.regret.mean == pytest.approx((0.355 + 0.005 + 0) / 3)


def test_the_fixed_choices_policy_is_found_without_a_look_at_what_is_held_out():
    held = case(
        "h", scenario="other", split="held_out",
        labels={"fcfs": (1.0, 1.0), "edf": (0.0, 0.0), "slide": (0.0, 0.0)},
    )  # fmt: skip
    assert fixed_choices([case(), held]) == ["slide", "edf", "fcfs"]
    assert fixed_choices([held])[0] == "fcfs"
    assert balance([case(), held])["held_out"] == {
        "fcfs": 1, "edf": 0, "slide": 0, "any": 0
    }  # fmt: skip
    alike = case(labels={"fcfs": (0.9, 1.0), "edf": (0.95, 0.955), "slide": (0.95, 0.95)})
    assert balance([alike])["development"]["any"] == 1


@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_orders_are_rotations_and_the_first_is_the_case_s_own(count):
    orders = rotated(case(), count)
    assert orders[0] == ("fcfs", "edf", "slide")
    assert len(set(orders)) == len(orders) == min(count, 3)
    assert all(sorted(order) == ["edf", "fcfs", "slide"] for order in orders)
