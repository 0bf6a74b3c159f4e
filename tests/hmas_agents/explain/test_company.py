"""Who waited for whom is exact, and overtaking is the inverse of being overtaken."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from hmas_agents.explain.company import SHOWN_IDS, company, overtook
from tests.hmas_agents.samples import outcome


def request(name, came_s, waited_s, stayed_s=10.0, tenant="acme", tokens=100):
    """`waited_s` None: never admitted."""
    return outcome(
        0, came_s, stayed_s, request_id=name, queue_s=waited_s, tenant=tenant, prompt_tokens=tokens
    )


IT = request("it", 10.0, 5.0)  # waits from 10 to 15
OTHERS = [
    request("gone", 0.0, 1.0, 5.0),
    request("runs", 0.0, 1.0, 12.0, tokens=300),
    request("ahead", 8.0, 4.0),
    request("same step", 9.0, 6.0, tenant="globex"),
    request("passed", 9.5, 6.0),
    request("given up", 5.0, None, 20.0),
    request("given up early", 5.0, None, 6.0),
    request("passes", 11.0, 1.0, tenant="globex"),
    request("later", 11.0, 9.0),
    request("later, same step", 12.0, 3.0),
    request("after", 16.0, 0.0),
]


def ids(found):
    return set(found.ids)


def test_each_request_around_it_stands_where_it_stood():
    found = company(IT, [IT, *OTHERS])
    assert ids(found.running) == {"runs"}
    assert ids(found.ahead) == {"ahead", "same step"}
    assert ids(found.overtaken_by) == {"passes"}
    assert ids(found.overtook) == {"passed", "given up"}
    assert found.running.prompt_tokens == 300
    assert found.ahead.by_tenant == {"acme": 1, "globex": 1}


def test_one_that_was_never_admitted_waited_until_it_left():
    given_up = replace(IT, queue_s=None, finished_s=13.0)
    found = company(given_up, OTHERS)
    assert ids(found.overtaken_by) == {"passes"}
    assert ids(found.ahead) == {"ahead"}
    assert found.overtook.requests == 0


def test_the_first_few_are_named_and_all_are_counted():
    many = [request(f"r{i}", 9.0 - i, 2.0 + i) for i in range(SHOWN_IDS + 4)]
    found = company(IT, many).ahead
    assert found.requests == len(many)
    assert found.ids == tuple(f"r{i}" for i in range(SHOWN_IDS + 3, 3, -1))


def test_unix_times_round_and_one_step_is_still_one_moment():
    base_s = 1.8e9
    early = request("early", base_s + 0.1, 0.7)
    late = request("late", base_s + 0.3, 0.5 - 3e-7)
    assert not overtook(late, early)
    assert overtook(replace(late, queue_s=0.4), early)


REQUESTS = st.lists(
    st.tuples(
        st.integers(0, 20),
        st.none() | st.integers(0, 10),
        st.integers(1, 10),
    ),
    min_size=2,
    max_size=8,
)


@settings(max_examples=200)
@given(REQUESTS)
def test_overtaking_and_being_overtaken_are_inverse(drawn):
    requests = [
        request(f"r{i}", float(came), waited, float((waited or 0) + stayed))
        for i, (came, waited, stayed) in enumerate(drawn)
    ]
    # All of them are named, as there are at most eight and each crowd holds fewer than that.
    overtook_whom = {
        (a.request_id, b.request_id) for a in requests for b in requests if overtook(a, b)
    }
    for it in requests:
        found = company(it, requests)
        passed = {b for a, b in overtook_whom if a == it.request_id}
        passing = {a for a, b in overtook_whom if b == it.request_id}
        assert found.overtook.requests == len(passed)
        assert found.overtaken_by.requests == len(passing)
        assert ids(found.overtook) <= passed
        assert ids(found.overtaken_by) <= passing
        assert not passed & passing
