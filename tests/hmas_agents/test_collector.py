"""Are collections rare while the loop runs, and as before when it ends, however it ends?"""

import gc
from contextlib import suppress

from hmas_agents.collector import rare_collections


def test_what_is_alive_is_left_out_until_the_end():
    gc.unfreeze()  # what another test in this process may have left
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    with suppress(KeyboardInterrupt), rare_collections():
        assert gc.get_freeze_count() > frozen + 10_000
        assert gc.get_threshold() > before
        assert gc.isenabled(), "what the loop itself leaves behind is collected"
        raise KeyboardInterrupt
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0
