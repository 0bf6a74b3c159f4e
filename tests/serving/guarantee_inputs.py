"""What may be thrown at an engine: settings, garbage, wild decisions."""

import math
from typing import Any

from hypothesis import strategies as st

from serving.contracts import Limits
from serving.contracts.rules import KNOBS, RULES, with_rules
from serving.contracts.settings import EngineSettings
from tests.serving.driven_scheduler import machine
from tests.serving.samples import shares

MAX_WAIT_S, FLOOR = 10.0, 0.4
SETTINGS = EngineSettings(
    max_wait_s=MAX_WAIT_S, contract=shares({"heavy": 3.0, "light": 0.2}, {"floored": FLOOR}),
    max_tenants=4, journal_size=100, bucket_s=0.5,
)  # fmt: skip
TENANTS = ("heavy", "light", "floored", "", "n0", "n1", "n2", "n3", "n4", "n5")
STOCK = Limits(machine().max_active_requests, machine().token_budget)
ALL_RULES = with_rules(STOCK, RULES)
NAN, INF = math.nan, math.inf
_COUNTS = [-(10**30), -1, 0, 1, 2, 5, 32, 10**9, 10**30]
_SHARES = [-1.0, 0.0, 0.3, 0.9, 7.0, NAN, INF, -INF]
_PARAMS = [0.0, 0.01, 1.0, -1.0, 1e300, 10**400, NAN, INF]

garbage = st.none() | st.dictionaries(
    st.sampled_from(["tenant", "slo_class", "slo_ttft_ms", "slo_tpot_ms", "slo_e2e_ms", "x"]),
    st.sampled_from(
        [None, True, -1, 0, 1, 250, 1e308, 2**64 - 1, NAN, INF, "", "7", "interactive", "batch",
         "\ud800", "x" * 5000, b"x", [], [[]], {}, {"a": 1}, object()]
    ),
    max_size=4,
)  # fmt: skip
_WILD: dict[Any, st.SearchStrategy[Any]] = {
    int: st.sampled_from(_COUNTS), float: st.sampled_from(_SHARES), bool: st.booleans(),
    bool | None: st.none() | st.booleans(),
}  # fmt: skip
wild_limits = st.builds(Limits, **{name: _WILD[knob.kind] for name, knob in KNOBS.items()})
wild_params = st.dictionaries(
    st.sampled_from(["kappa", "rho", "quantum_s", "levels", "nope"]),
    st.sampled_from(_PARAMS),
    max_size=2,
)
