"""Do the histograms count every value once, under a bounded number of tenants?"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.contracts import SLO
from serving.perception.accounting import Accounting, RequestTrack, judge
from serving.perception.latencies import BOUNDS, Latencies, slo_used
from serving.perception.length_model import LengthModel
from serving.policies import RequestView

VALUES = st.lists(
    st.tuples(st.sampled_from("abcdefghijklm"), st.floats(0, 1e4)), min_size=1, max_size=60
)


@given(VALUES, st.sampled_from(list(BOUNDS)), st.booleans())
def test_every_value_is_in_the_first_bucket_that_holds_it(values, name, at_once):
    latencies = Latencies()
    if at_once:
        groups = np.array([latencies.group(tenant, "batch") for tenant, _ in values])
        counts, sums, bounds = latencies.arrays(name)
        for group, (_, value) in zip(groups, values, strict=True):
            counts[group, bounds.searchsorted(value)] += 1
            sums[group] += value
    else:
        for tenant, value in values:
            latencies.observe(name, latencies.group(tenant, "batch"), value)
    told = {each.tenant: each for each in latencies.histograms()}
    assert set(told) == {tenant for tenant, _ in values}
    for tenant, histogram in told.items():
        mine = [value for who, value in values if who == tenant]
        for place, bound in enumerate(BOUNDS[name]):
            assert sum(histogram.counts[: place + 1]) == sum(value <= bound for value in mine)
        assert sum(histogram.counts) == len(mine)
        assert histogram.total == pytest.approx(sum(mine))


@given(
    st.builds(SLO, *[st.none() | st.floats(1, 1e4)] * 3), st.none() | st.floats(0, 10),
    st.none() | st.floats(0, 10), st.floats(0, 10),
)  # fmt: skip
def test_a_target_is_used_up_by_at_most_one_exactly_when_it_is_met(slo, ttft_s, tpot_s, e2e_s):
    used = slo_used(slo, ttft_s, tpot_s, e2e_s)
    if ttft_s is not None and used is not None and abs(used - 1) > 1e-9:
        assert (used < 1) == judge(slo, 0.0, ttft_s, tpot_s, e2e_s)[0]


def test_the_last_tenants_have_histograms_of_their_own_and_the_others_share_one():
    accounting = Accounting(journal_size=100, max_tenants=2)
    group = LengthModel().group("t", 8, 8)
    for number in range(50):
        view = RequestView(f"r{number}", f"t{number}", "batch", SLO(), 0.0, 9.0, 8)
        track = RequestTrack(view, 8, group, 8)
        accounting.arrive(track)
        track.admitted_s, track.first_token_s = 1.0, 2.0
        accounting.leave(view.request_id, "stop", 3.0)
    told = [each for each in accounting.latencies.histograms() if each.measure == "ttft_seconds"]
    assert {each.tenant: sum(each.counts) for each in told} == {"t48": 1, "t49": 1, "other": 48}
