"""Does a router that sees texts send them where they are in time, and forget what is old?"""

import math

import pytest

from serving.contracts import Contract, RoutingHint, encode
from serving.contracts.contract import ClassTerms
from serving.contracts.settings import EngineSettings
from serving.fleet.chooser import (
    CHARACTERS_PER_TOKEN,
    PIECE,
    REMEMBERED,
    STALE_S,
    Asked,
    ReplicaChooser,
    Said,
    mean_hint,
    text_of,
)

SETTINGS = EngineSettings(contract=Contract(believe_clients=True))
IDLE = RoutingHint((0.0,) * 10, 1e-4, 0.01)


def owing(seconds, since=0):
    """A hint of so many seconds that are due from place `since` on."""
    return RoutingHint((0.0,) * since + (seconds,) * (10 - since), 1e-4, 0.01)


def asked(text="", **extra):
    return ReplicaChooser(SETTINGS).asked(text, extra, None)


def heard(chooser, at_s, **hints):
    chooser.follow({name: hint and Said(at_s, hint) for name, hint in hints.items()})


def test_a_request_goes_where_it_is_in_time():
    chooser = ReplicaChooser(SETTINGS)
    assert chooser.order(asked(), 0.0) == []
    heard(chooser, 0.0, a=owing(30.0), b=owing(0.4), c=None)
    assert chooser.order(asked(), 0.0)[0] == "b"  # what has said nothing yet has to wait
    heard(chooser, 0.1, a=owing(30.0), b=owing(0.4), c=owing(3.0))
    assert chooser.order(asked(slo_class="interactive"), 0.1) == ["b", "a", "c"]
    # What is due later than a minute does not stand in the way of a chat.
    heard(chooser, 0.2, a=owing(30.0, since=9), b=owing(0.4), c=owing(3.0))
    assert chooser.order(asked(slo_class="interactive"), 0.2)[0] == "a"
    # What was said before that comes late.
    heard(chooser, 0.15, a=owing(30.0), b=IDLE, c=IDLE)
    assert chooser.order(asked(slo_class="interactive"), 0.2)[0] == "a"


def test_what_has_been_sent_counts_until_the_replica_has_said_so_itself():
    chooser, long = ReplicaChooser(SETTINGS), asked("x " * 40_000)
    heard(chooser, 0.0, a=IDLE, b=IDLE)
    first = chooser.order(long, 0.1)[0]
    chooser.sent(long, first, 0.1)
    (other,) = {"a", "b"} - {first}
    assert chooser.order(asked("hello"), 0.2)[0] == other
    heard(chooser, 0.05, a=IDLE, b=IDLE)  # of before it was sent
    assert chooser.order(asked("hello"), 0.3)[0] == other
    heard(chooser, 0.35, **{first: owing(1e-6), other: owing(5.0)})
    assert chooser.order(asked("hello"), 0.4)[0] == first


def test_a_talk_goes_on_where_it_began_unless_it_would_be_late_there():
    chooser, talk = ReplicaChooser(SETTINGS), "once upon a time " * 1000
    heard(chooser, 0.0, a=IDLE, b=IDLE)
    home = chooser.order(asked(talk), 0.0)[0]
    chooser.sent(asked(talk), home, 0.0)
    (other,) = {"a", "b"} - {home}
    for turn in range(5):
        more = asked(talk + "and then " * 100 * turn, slo_class="interactive")
        heard(chooser, 10.0 + turn, **{home: owing(0.1), other: IDLE})
        assert chooser.order(more, 10.0 + turn)[0] == home
        chooser.sent(more, home, 10.0 + turn)
    heard(chooser, 20.0, **{home: owing(60.0), other: IDLE})
    assert chooser.order(asked(talk, slo_class="interactive"), 20.0)[0] == other


def test_replicas_that_leave_are_forgotten_and_new_ones_get_their_share():
    chooser, talk = ReplicaChooser(SETTINGS), asked("hm " * 20_000)
    assert chooser.order(talk, 0.0) == []
    heard(chooser, 0.0, a=IDLE)
    chooser.sent(talk, "a", 0.1)
    chooser.sent(talk, "gone", 0.1)
    heard(chooser, 1.0, a=owing(1.5), b=IDLE)
    assert chooser.order(asked("hello"), 1.0) == ["b", "a"]
    assert chooser.order(talk, 100.0)[0] == "a"
    heard(chooser, 101.0, b=IDLE)
    assert chooser.order(talk, 101.0) == ["b"]
    heard(chooser, 102.0, a=IDLE, b=IDLE)
    chooser.sent(talk, "b", 102.0)
    assert chooser.order(talk, 200.0)[0] == "b"


def test_a_replica_that_says_nothing_any_more_comes_last_and_alone_it_serves():
    chooser = ReplicaChooser(SETTINGS)
    heard(chooser, 0.0, a=IDLE, b=owing(5.0))
    assert chooser.order(asked(), STALE_S)[0] == "a"
    heard(chooser, 10.0, b=owing(5.0))
    heard(chooser, 10.0, a=IDLE, b=owing(5.0))
    chooser.follow({"a": Said(10.0, IDLE), "b": Said(10.1 + STALE_S, owing(9.0))})
    assert chooser.order(asked(), 10.1 + STALE_S) == ["b", "a"]
    assert len(chooser.order(asked(), 1e9)) == 2


@pytest.mark.parametrize("guess", [1e-2, 1e-6])
def test_a_new_replica_is_taken_for_as_fast_as_the_others(guess):
    chooser, texts = ReplicaChooser(SETTINGS), [asked(f"{i} " * 20_000) for i in range(4)]
    new = RoutingHint((0.0,) * 10, guess, guess, learned=False)
    heard(chooser, 0.0, a=IDLE, b=new)
    for text in texts:
        chooser.sent(text, chooser.order(text, 0.0)[0], 0.0)
    assert chooser.order(texts[0], 0.0)[0] != chooser.order(texts[1], 0.0)[0]
    busy = RoutingHint((2000 * guess,) * 10, guess, guess, learned=False)
    heard(chooser, 1.0, a=owing(0.1), b=busy)  # 0.2 s of the same work
    assert chooser.order(asked("hello"), 1.0)[0] == "a"


def test_old_texts_are_forgotten_first():
    chooser = ReplicaChooser(SETTINGS)
    heard(chooser, 0.0, a=IDLE, b=owing(0.01))
    first, half = asked("f" * PIECE * 100), REMEMBERED // 2
    chooser.sent(first, "a", 0.0)
    assert chooser.order(first, 900.0)[0] == "a"
    for number in range(3):
        pieces = tuple(range(number * half, (number + 1) * half))
        chooser.sent(Asked(pieces, half * PIECE / CHARACTERS_PER_TOKEN, 1.0), "a", 0.0)
    heard(chooser, 1.0, a=owing(0.02), b=owing(0.01))
    assert chooser.order(first, 1.0)[0] == "b"  # neither has it: the one that owes less


@pytest.mark.parametrize(
    ("extra", "target_s"),
    [
        ({"slo_class": "interactive"}, 2.0), ({"slo_ttft_ms": 300}, 0.3),
        ({"slo_ttft_ms": 9000, "slo_e2e_ms": 5000}, 5.0), ({"slo_tpot_ms": 5}, math.inf),
    ],
)  # fmt: skip
def test_the_target_is_that_of_the_contract(extra, target_s):
    classes = {"interactive": ClassTerms(ttft_ms=2000)}
    settings = EngineSettings(contract=Contract(believe_clients=True, classes=classes))
    assert ReplicaChooser(settings).asked("", extra, None).target_s == target_s


def test_texts_are_those_of_prompts_and_messages_and_nothing_else_raises():
    parts = [{"type": "text", "text": "b"}, {"type": "image_url", "image_url": {"url": "u"}}]
    messages = [{"role": "system", "content": "a"}, {"role": "user", "content": parts}]
    assert text_of(messages) == "ab"
    assert text_of(["x", "y"]) == "xy"
    assert [text_of(each) for each in ("", None, 7, [1, 2], {"content": None})] == [""] * 5
    one, two = asked("a" * 3 * PIECE + "b"), asked("a" * 2 * PIECE + "c" * PIECE)
    assert [len(one.pieces), len(two.pieces)] == [3, 3]
    assert one.pieces[:2] == two.pieces[:2]
    assert one.pieces[2] != two.pieces[2]


def test_engines_of_one_replica_are_one_for_the_router():
    assert mean_hint([owing(2.0), IDLE]).prefill_due_s == (1.0,) * 10


def test_what_is_promised_is_the_newest_contract_that_a_replica_holds():
    chooser, chat = ReplicaChooser(SETTINGS), {"slo_class": "interactive"}
    started = chooser.asked("", chat, None).target_s
    longer = SETTINGS.contract.model_copy(
        update={"classes": {"interactive": ClassTerms(ttft_ms=7000, tpot_ms=100)}}
    )
    chooser.follow({"a": Said(0.0, IDLE), "b": Said(0.0, IDLE, 2, encode(longer)), "c": None})
    assert chooser.asked("", chat, None).target_s == 7.0
    chooser.follow({"a": Said(1.0, IDLE), "b": None, "c": None})  # started anew, as it was set up
    assert chooser.asked("", chat, None).target_s == started
