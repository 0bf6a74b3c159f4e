"""Which requests do the conformance tests of policies use, beside those of `tests.serving`?"""

from dataclasses import replace

from serving.policies import RequestView


def known(
    one: RequestView, answer: float, q90: float = 0.0, cached: int = 0, attained: int = 0
) -> RequestView:
    """A request of which perception knows something: answer's length, cached prefix, past."""
    return replace(
        one, predicted_output_tokens=answer, q90_output_tokens=q90, cached_tokens=cached,
        attained_tokens=attained,
    )  # fmt: skip
