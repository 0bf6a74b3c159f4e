"""What does the long horizon see of an engine with several ranks?"""

from dataclasses import replace

import pytest

from hmas_agents.config import load_config
from hmas_agents.observer import MAX_WINDOW, Observer
from serving.contracts import Snapshot
from serving.engines.ranks import merge_snapshots
from tests.fakes import FakeEngine
from tests.hmas_agents.samples import arrival


class Ranks(FakeEngine):
    """Several equal ranks; the journal is the first one's."""

    count = 1

    def snapshot(self) -> Snapshot:
        shot = super().snapshot()
        ranks = [replace(shot, rank=i, journal_head=0) for i in range(1, self.count)]
        return merge_snapshots([shot, *ranks])


@pytest.mark.parametrize(("ranks", "numbers"), [(1, range(60)), (2, range(0, 60, 2)),
                                                (3, range(0, 60, 3))])  # fmt: skip
def test_the_twin_is_given_one_ranks_share_of_the_window(ranks, numbers):
    engine = Ranks(now_s=100.0)
    engine.count = ranks
    observer = Observer(engine, load_config(None), None)
    observer.look()
    engine.events += [arrival(i, 100.0 + i, prompt_tokens=i + 1) for i in range(60)]
    engine.now_s = 160.0
    requests = observer.situation().requests
    assert [request.prompt_tokens - 1 for request in requests] == list(numbers)
    assert requests[0].arrival_s == 0.0


def test_the_newest_requests_are_kept_when_there_are_too_many_for_the_twin():
    engine = Ranks(now_s=100.0)
    engine.count = 2
    observer = Observer(engine, load_config(None), None)
    observer.look()
    came = 2 * MAX_WINDOW + 100
    engine.events += [arrival(i, 100.0 + i / 1000, prompt_tokens=i + 1) for i in range(came)]
    engine.now_s = 130.0
    situation = observer.situation()
    assert len(situation.requests) == MAX_WINDOW
    assert situation.requests[0].prompt_tokens - 1 == 100
    assert situation.span_s == pytest.approx(130.0 - 100.1)
