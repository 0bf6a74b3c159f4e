"""How are records written for people? What a margin was made of."""

import pytest

from hmas_agents.forms import judgement
from hmas_agents.records import Proposal


@pytest.mark.parametrize(
    ("margin", "risk", "made_of"),
    [
        (0.12, 0.02, "+12.0 points: 6.0 times the 2.00 that it risks"),
        (0.01, 0.0, "+1.0 points: one request of those that count"),
        (-0.005, 0.0, "-0.5 points: control starts with it"),
    ],
)
def test_a_margin_says_what_it_was_made_of(margin, risk, made_of):
    terms = {"against": 0.6, "futures": 16, "risk": risk, "caution": 6.0}
    proposal = Proposal("twin", "srpt", predicted=0.8, gain=0.2, margin=margin, terms=terms)
    assert judgement(proposal) == f"lead +20.0 points on 16 futures, must exceed {made_of}"
