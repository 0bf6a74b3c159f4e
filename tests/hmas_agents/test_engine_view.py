"""What only the controller can tell of its engine: the limits in force, and lost events."""

import math
from dataclasses import replace

from graphs.control_loop import ControlLoop
from hmas_agents import engine_view
from hmas_agents.config import Config, load_config
from hmas_agents.controller_metrics import REGISTRY
from hmas_agents.engine_watch import EngineWatch
from serving.contracts import JournalPage, Limits, encode
from tests.fakes import FakeEngine


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_limits_are_numbers_flags_are_0_or_1_and_unset_is_nan():
    engine_view.show_limits(encode(Limits(64, 2048, prefill_share=0.1, follow_slack=True)))
    shown = {
        limit: value("hmas_controller_limit", limit=limit)
        for limit in ("token_budget", "prefill_share", "follow_slack", "tenant_buckets")
    }
    assert shown == {
        "token_budget": 2048.0, "prefill_share": 0.1, "follow_slack": 1.0, "tenant_buckets": 0.0,
    }  # fmt: skip
    assert math.isnan(value("hmas_controller_limit", limit="demote_hopeless"))


def test_lost_events_add_up():
    before = value("hmas_controller_journal_events_lost_total")
    engine_view.count_lost(3)
    engine_view.count_lost(0)
    engine_view.count_lost(2)
    assert value("hmas_controller_journal_events_lost_total") == before + 5


class Forgetful(FakeEngine):
    """Its journal has overwritten four events at each look."""

    def journal(self, cursor: int, limit: int = 5000) -> JournalPage:
        return replace(super().journal(cursor, limit), lost=4)


def test_what_the_observer_finds_lost_is_counted():
    before = value("hmas_controller_journal_events_lost_total")
    EngineWatch(Forgetful(), Config(), None).look()
    assert value("hmas_controller_journal_events_lost_total") == before + 4


def test_a_loop_shows_the_limits_that_its_decision_left():
    engine_view.show_limits({"follow_slack": False})
    settings = {"control.mode": "act", "model.enabled": False, "twin.enabled": False}
    with ControlLoop(FakeEngine(), load_config(None, settings), None) as loop:
        loop.short_tick()
        assert value("hmas_controller_limit", limit="follow_slack") == 1.0
