"""What is predicted for a tenant that has had no answer yet?"""

from serving.core.lengths import DEFAULT_TOKENS
from serving.perception.length_model import LengthModel


def test_a_new_tenants_answers_are_predicted_as_everybodys():
    lengths = LengthModel()
    new = lengths.group("new", 90, 65)
    assert lengths.predicted(new)[0] == DEFAULT_TOKENS, "nobody has had an answer"
    known = lengths.group("known", 90, 65)
    for _ in range(60):
        lengths.learn(known, 700)
    assert lengths.predicted(new) == lengths.predicted(known)
    assert lengths.predicted(new)[0] > DEFAULT_TOKENS
