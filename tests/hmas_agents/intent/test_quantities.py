"""Is a time, a duration, a share or a factor found in whatever form it is written?"""

import pytest

from hmas_agents.intent.quantities import clock_after, marked


@pytest.mark.parametrize(
    ("written", "mark"),
    [("18:00", "<at 18:00>"), ("6 pm", "<at 18:00>"), ("6:30 p.m.", "<at 18:30>"),
     ("12 am", "<at 00:00>"), ("12:15 pm", "<at 12:15>"), ("noon", "<at 12:00>"),
     ("midnight", "<at 00:00>"), ("twenty to six in the morning", "<at 05:40>"),
     ("half past eleven pm", "<at 23:30>"), ("8 o'clock in the evening", "<at 20:00>"),
     ("until 1730", "until <at 17:30>"), ("at 18h", "at <at 18:00>"),
     ("2 to 4 pm", "<at 14:00> to <at 16:00>"), ("90 minutes", "<min 90>"), ("2 hrs", "<min 120>"),
     ("1h30", "<min 90>"), ("half an hour", "<min 30>"), ("ninety minutes", "<min 90>"),
     ("30 percent", "<share 0.3>"), ("12 pct", "<share 0.12>"), ("1 in 4", "<share 0.25>"),
     ("a third", "<share 0.3333>"), ("3 times", "<x 3>"), ("4-fold", "<x 4>"),
     ("times 2.5", "<x 2.5>"), ("thrice", "<x 3>"), ("weight 0.4", "weight <x 0.4>"),
     ("weight -2", "weight <x -2>"),
     ("until 20", "until <at 20:00>"), ("until 1800h", "until <at 18:00>"),
     ("an hour and a half", "<min 90>"), ("2 and a half hours", "<min 150>"),
     ("three quarters of an hour", "<min 45>"), ("a quarter of an hour", "<min 15>"),
     ("1h 30m", "<min 90>"), ("2 hours and 15 minutes", "<min 135>"),
     ("two days", "<min 2880>"), ("twenty-five percent", "<share 0.25>"), ("3/4", "<share 0.75>"),
     ("two-thirds", "<share 0.6667>"), ("3 x", "<x 3>"), ("doubles", "<x 2>"),
     ("is tripled", "is <x 3>"), ("halves it", "cut by <share 0.5> it")],
)  # fmt: skip
def test_each_form_gets_its_mark(written, mark):
    assert marked(f"acme {written} then") == f"acme {mark} then"


def test_what_is_no_quantity_stays():
    text = "i am sure wharf-b is noon-ish at best, and nobody knows"
    assert marked(text) == text


def test_time_goes_on_over_midnight():
    assert clock_after("23:50", 20) == "00:10"
