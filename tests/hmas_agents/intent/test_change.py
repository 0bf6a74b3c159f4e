"""Is a change of the contract only what the contract can take, and said clearly when it is not?"""

import pytest

from hmas_agents.intent.change import (
    Change,
    ChangeError,
    Names,
    Question,
    canonical,
    read_answer,
)
from serving.contracts import Contract
from serving.contracts.contract import SLO_CLASSES, TenantTerms

NAMES = Names(tenants=("acme", "globex"), slo_classes=("interactive", "batch"))
FIRST = {"kind": "weight", "tenant": "acme", "factor": 3}
FLOOR = {"kind": "floor", "tenant": "acme", "share": 0.5}


def read(*changes, now="12:00"):
    return read_answer(list(changes), NAMES, now)


def test_a_list_of_changes_is_read_with_and_without_nulls():
    launch = {"kind": "expect", "tenant": "acme", "factor": 3.0, "from": "14:00"}
    nulls = {"slo_class": None, "share": None, "until": None, "for_min": None}
    wait = {"kind": "weight", "slo_class": "batch", "factor": 0.3, "until": "18:00"}
    assert canonical(read(launch, wait)) == canonical(read(wait, launch | nulls))
    [change] = read(launch)
    assert (change.kind, change.tenant, change.amount, change.from_) == (
        "expect", "acme", 3, "14:00"
    )  # fmt: skip


def test_a_question_is_read_and_all_questions_are_alike():
    asked = read_answer({"question": "Which tenant?"}, NAMES, "12:00")
    assert asked == Question(question="Which tenant?")
    assert canonical(asked) == canonical(Question(question="Until when?"))
    assert canonical(asked) != canonical(read(FIRST))


@pytest.mark.parametrize(
    "other",
    [{"factor": 2}, {"tenant": "globex"}, {"slo_class": "batch"}, {"from": "13:00"},
     {"until": "13:00"}, {"for_min": 60}],
)  # fmt: skip
def test_changes_that_differ_in_any_field_are_not_the_same(other):
    assert canonical(read(FIRST)) != canonical(read(FIRST | other))


def test_amounts_are_compared_to_the_percent():
    shares = [{"kind": "shed", "slo_class": "batch", "share": x} for x in (1 / 3, 0.33, 0.34)]
    third, written, more = (canonical(read(each)) for each in shares)
    assert third == written != more


def test_shedding_without_a_share_is_of_everything():
    [change] = read({"kind": "shed", "slo_class": "batch"})
    assert change.share == 1
    assert canonical(read({"kind": "shed", "slo_class": "batch", "share": None})) == canonical(
        read({"kind": "shed", "slo_class": "batch", "share": 1})
    )


@pytest.mark.parametrize(
    "change",
    [{"kind": "expect", "factor": 2}, {"kind": "slo_scale", "factor": 1.2},
     {"kind": "shed", "share": 0.2}, {"kind": "weight", "factor": 1},
     {"kind": "floor", "slo_class": "batch", "share": 0.1},
     {"kind": "weight", "tenant": "acme", "factor": 3, "from": "22:00", "until": "06:00"},
     {"kind": "weight", "tenant": "acme", "factor": 3, "from": "22:00", "for_min": 30}],
)  # fmt: skip
def test_what_the_vocabulary_has_is_taken(change):
    assert read(change) == (Change.model_validate(change),)


@pytest.mark.parametrize(
    ("reply", "told"),
    [([], "at least 1 item"), ([FIRST] * 13, "at most 12"), ("acme first", "array"),
     (None, "array"), ([FIRST, 7], "change 2"), ({"question": ""}, "question: "),
     ({"question": "x" * 301}, "300"), ({"question": "Who?", "kind": "shed"}, "kind: unknown"),
     ([FIRST | {"kind": "wieght"}], "did you mean 'weight'? there are weight, floor"),
     ([FIRST | {"tenent": "acme"}], "tenent: unknown; did you mean 'tenant'?"),
     ([FIRST | {"tenant": "acne"}], "change 1: no tenant 'acne'; did you mean 'acme'?"),
     ([FIRST, FLOOR | {"slo_class": "bulk"}], "change 2: no SLO class 'bulk'; there are inter"),
     ([{"kind": "weight", "tenant": "acme"}], "change 1: weight: needs a factor"),
     ([{"kind": "weight", "tenant": "acme", "share": 0.3}], "weight: takes a factor, not a share"),
     ([FIRST | {"share": 0.3}], "weight: takes a factor, not a share"),
     ([{"kind": "floor", "tenant": "acme", "factor": 0.3}], "floor: takes a share, not a factor"),
     ([FLOOR | {"share": 0.95}], "floor: share is 0 to 0.9, not 0.95"),
     ([{"kind": "shed", "share": 1.2}], "shed: share is 0 to 1, not 1.2"),
     ([FIRST | {"factor": 0}], "weight: factor is 0.01 to 100, not 0"),
     ([FIRST | {"factor": -1}], "not -1"), ([FIRST | {"factor": float("inf")}], "finite"),
     ([FIRST | {"factor": float("nan")}], "finite"), ([FIRST | {"factor": "3"}], "number"),
     ([FIRST | {"factor": True}], "number"),
     ([{"kind": "slo_scale", "factor": 0.01}], "factor is 0.1 to 10"),
     ([{"kind": "expect", "factor": 101}], "factor is 0 to 100"),
     ([{"kind": "weight", "factor": 3}], "names a tenant or an SLO class"),
     ([{"kind": "floor", "share": 0.3}], "names a tenant or an SLO class"),
     ([FIRST | {"from": "24:00"}], "change 1: from: "), ([FIRST | {"until": "6pm"}], "until: "),
     ([FIRST | {"from": "9:00"}], "from: "), ([FIRST | {"from": "١٤:٠٠"}], "from: "),
     ([FIRST | {"for_min": 0}], "for_min: "), ([FIRST | {"for_min": 10081}], "for_min: "),
     ([FIRST | {"for_min": 2.5}], "for_min: "),
     ([FIRST | {"until": "14:00", "for_min": 30}], "not both"),
     ([FIRST | {"from": "14:00", "until": "14:00"}], "begins and ends at 14:00"),
     ([FIRST | {"until": "12:00"}], "change 1: ends at 12:00, which is now"),
     ([FIRST, FIRST | {"factor": 2}], "changes 1 and 2: the same, for the same time"),
     ([FLOOR, FLOOR | {"tenant": "globex"}], "floors add up to 1, at most 0.9"),
     ([FIRST | {"factor": {1, 2}}], "not JSON")],
)  # fmt: skip
def test_what_cannot_be_asked_for_is_refused_and_named(reply, told):
    with pytest.raises(ChangeError) as refused:
        read_answer(reply, NAMES, "12:00")
    assert told in str(refused.value)


def test_every_problem_has_a_line():
    with pytest.raises(ChangeError) as refused:
        read(FIRST | {"tenant": "x"}, FLOOR | {"slo_class": "y"})
    assert len(str(refused.value).splitlines()) == 2


def test_the_same_may_change_twice_where_one_ends_before_the_other_begins():
    read(FIRST | {"until": "18:00"}, FIRST | {"factor": 0.5, "from": "18:00"})
    read(FLOOR | {"until": "18:00"}, FLOOR | {"tenant": "globex", "from": "18:00"})
    with pytest.raises(ChangeError, match="the same, for the same time"):
        read(FIRST | {"until": "18:00"}, FIRST | {"factor": 0.5, "from": "17:59"})


@pytest.mark.parametrize(
    ("now", "times", "window"),
    [("12:00", {}, (0, float("inf"))), ("12:00", {"until": "18:00"}, (0, 360)),
     ("23:00", {"until": "06:00"}, (0, 420)), ("12:00", {"from": "14:00"}, (120, float("inf"))),
     ("23:50", {"from": "00:10", "for_min": 5}, (20, 25)),
     ("15:00", {"from": "14:00", "until": "18:00"}, (1380, 1620)),
     ("21:00", {"from": "22:00", "until": "06:00"}, (60, 540)),
     ("05:00", {"from": "05:00", "until": "04:59"}, (0, 1439)), ("12:00", {"for_min": 7}, (0, 7))],
)  # fmt: skip
def test_times_mean_their_next_occurrence(now, times, window):
    [change] = read(FIRST | times, now=now)
    assert change.window_min(now) == window


def test_names_are_those_of_the_contract():
    contract = Contract(tenants={"acme": TenantTerms(weight=2)})
    assert Names.of(contract) == Names(tenants=("acme",), slo_classes=tuple(SLO_CLASSES))
