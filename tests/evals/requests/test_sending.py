"""Do senders keep their rate, bursts and changes when they are brought to a load?"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.requests.sending import Block, Stream, Stretch, sent
from evals.suite.shapes import Change, Lognormal
from serving.contracts import TraceRequest

SHORT = Lognormal(100, 300, 2000)
FOREVER = float("inf")


def stream(rate_rps=1.0, cv=1.0, length_s=4000.0, tenant="a", family="Gamma"):
    shape = 1 / cv**2 if family == "Gamma" else cv
    one = Stretch(0.0, length_s, rate_rps * length_s, family, shape, SHORT, SHORT)
    return Stream(TraceRequest(0.0, 1, 1, tenant, "batch"), (one,))


def cv_of(arrival_s):
    gaps = np.diff(arrival_s)
    return gaps.std() / gaps.mean()


@pytest.mark.parametrize("factor", [0.2, 1.0, 4.0])
@pytest.mark.parametrize(("family", "cv", "expected"), [
    ("Gamma", 0.5, 0.5), ("Gamma", 3.0, 3.0), ("Weibull", 0.5, 5**0.5),
])  # fmt: skip
def test_more_load_is_more_requests_in_the_same_time_with_the_same_burstiness(
    factor, family, cv, expected
):
    sends = stream(5.0, cv, family=family)
    arrival_s = sends.send(factor, Block(4000.0, 3)).arrival_s
    assert len(arrival_s) == pytest.approx(20_000 * factor, abs=1)
    assert 0 <= arrival_s[0] <= arrival_s[-1] <= 4000
    assert cv_of(arrival_s) == pytest.approx(expected, rel=0.1)


def test_so_few_requests_are_rounded_up_or_down_by_chance():
    counts = [len(stream(0.01, length_s=40.0).send(1.0, Block(40.0, i))) for i in range(2000)]
    assert set(counts) == {0, 1}
    assert np.mean(counts) == pytest.approx(0.4, abs=0.05)


def test_the_same_seed_is_the_same_and_another_is_another():
    one, same, other = (stream().send(1.0, Block(4000.0, seed)) for seed in (1, 1, 2))
    assert one.requests() == same.requests()
    assert one.arrival_s.tolist() != other.arrival_s.tolist()


@given(
    factor=st.floats(0, 20), at=st.floats(0.1, 0.5), lasts=st.floats(0.1, 0.4),
    over=st.sampled_from([0.0, 0.03, 0.1]), seed=st.integers(0, 50),
)  # fmt: skip
def test_a_change_changes_the_rate_by_its_factor_where_it_says(factor, at, lasts, over, seed):
    change = Change(factor, at * 4000, (at + lasts) * 4000, over * 4000)
    arrival_s = stream(3.0, 0.2).send(1.0, Block(4000.0, seed, (change,))).arrival_s
    ramp_s = over * 4000
    inside = ((arrival_s >= change.from_s + ramp_s) & (arrival_s < change.until_s)).sum()
    before = (arrival_s < change.from_s).sum()
    assert before / change.from_s == pytest.approx(3.0, rel=0.05)
    if (plateau_s := change.until_s - change.from_s - ramp_s) > 0:
        assert inside == pytest.approx(factor * 3.0 * plateau_s, rel=0.05, abs=25)
    assert len(arrival_s) == pytest.approx(
        3.0 * (4000 + (factor - 1) * (change.until_s - change.from_s)), rel=0.02
    )


def test_a_ramp_rises_in_between():
    block = Block(4000.0, 1, (Change(3.0, 1000.0, FOREVER, 2000.0),))
    arrival_s = stream(5.0, 0.2).send(1.0, block).arrival_s
    per_s = np.histogram(arrival_s, bins=8, range=(0, 4000))[0] / 500
    assert per_s == pytest.approx([5, 5, 6.25, 8.75, 11.25, 13.75, 15, 15], rel=0.03)


def test_a_tenant_joins_another_leaves_and_the_third_goes_on():
    changes = (Change(0.0, 0.0, 1500.0, tenant="new"), Change(0.0, 2500.0, FOREVER, tenant="old"))
    senders = [stream(tenant=name) for name in ("new", "old", "other")]
    columns = sent(senders, 1.0, Block(4000.0, 1, changes))
    assert (np.diff(columns.arrival_s) >= 0).all()
    own = {
        one.tenant: columns.arrival_s[columns.sender == i] for i, one in enumerate(columns.senders)
    }
    assert own["new"][0] >= 1500
    assert own["old"][-1] <= 2500
    assert [len(own[name]) for name in ("new", "old", "other")] == [2500, 2500, 4000]
