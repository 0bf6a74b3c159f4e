"""What has begun elsewhere? A request that another engine holds, and what the future knows of it.

Imports nothing of vLLM: the compiled engine starts from these without it.
"""

from dataclasses import dataclass
from typing import Any

from serving.contracts import ResidentRequest, TraceRequest
from serving.contracts.settings import EngineSettings
from serving.perception.accounting import RequestTrack
from serving.perception.attributes import slo_of
from serving.policies import RequestView


@dataclass(frozen=True, slots=True)
class Begun:
    """A request inside an engine, and what only the future knows of it.

    Attributes:
        inside: its times count from the simulation's second 0, so they are not positive.
        output_tokens: true length of its whole answer, what it has already included.

    Raises:
        ValueError: it cannot go on from there; says which figure does not fit.
    """

    inside: ResidentRequest
    output_tokens: int

    def __post_init__(self) -> None:
        one = self.inside
        if one.arrival_s > 0.0:
            raise ValueError(f"{one.request_id}: arrival_s = {one.arrival_s} is after second 0")
        if self.output_tokens <= one.output_tokens:
            raise ValueError(
                f"{one.request_id}: output_tokens = {self.output_tokens}, but "
                f"{one.output_tokens} are out and at least one is to come"
            )
        # The newest token is not in the cache before the step that follows it.
        if one.computed_tokens >= one.prompt_tokens + one.output_tokens:
            raise ValueError(
                f"{one.request_id}: computed_tokens = {one.computed_tokens} must be below "
                f"prompt and answer so far, {one.prompt_tokens} + {one.output_tokens}"
            )

    def track(self, name: str) -> RequestTrack:
        """Its outcome's beginnings, as a client has seen them."""
        one = self.inside
        view = RequestView(
            name, one.tenant, one.slo_class, one.slo, one.arrival_s, 0.0, one.prompt_tokens
        )
        track = RequestTrack(view, one.max_tokens, ("", 0), one.prompt_tokens)
        track.output_tokens = one.output_tokens
        track.remember(one)
        return track

    @property
    def decodes(self) -> bool:
        """Whether it runs and only its newest token is to be computed."""
        return decodes(self.inside)

    def arguments(self, settings: EngineSettings) -> dict[str, Any]:
        """What its `vllm_xargs` must say for the hook to know tenant and targets."""
        return request_arguments(self.inside, settings)


def request_arguments(
    one: ResidentRequest | TraceRequest, settings: EngineSettings
) -> dict[str, str | float]:
    """The `vllm_xargs` of a request: its class, or targets that are not those of its class."""
    named: dict[str, str | float] = {"tenant": one.tenant, "slo_class": one.slo_class}
    if one.slo is None or slo_of(named, settings, one.tenant) == (one.slo_class, one.slo):
        return named
    targets = {
        "slo_ttft_ms": one.slo.ttft_ms, "slo_tpot_ms": one.slo.tpot_ms,
        "slo_e2e_ms": one.slo.e2e_ms, "slo_itl_ms": one.slo.itl_ms,
    }  # fmt: skip
    return named | {key: value for key, value in targets.items() if value is not None}


def decodes(inside: ResidentRequest) -> bool:
    """Only its newest token is to be computed: one that gets an answer again would look alike."""
    rest = inside.prompt_tokens + inside.output_tokens - inside.computed_tokens
    return inside.running and inside.output_tokens > 0 and rest == 1
