"""What does `--max-num-queued-tokens` do? vLLM's own scheduler, with its admission check.

vLLM checks in the API server, which the simulator leaves out. The oracle of the compiled
engine's check.
"""

from serving.contracts import TraceRequest
from serving.contracts.settings import EngineSettings
from serving.engines.profile import EngineProfile
from serving.engines.simulated import SimulatedEngine


class AdmissionEngine(SimulatedEngine):
    """Refuses a request that arrives while enough prompt tokens are queued.

    As `AsyncLLM.check_admission` of vLLM 0.33: queued are the whole prompts of all requests
    whose first token is not out yet, whatever part of them is computed; a request is refused
    when they have reached the limit, its own prompt is not added. One that got its only token
    in the step under way counts no more, though vLLM and the compiled engine still count it.
    """

    def __init__(
        self, profile: EngineProfile, settings: EngineSettings, max_num_queued_tokens: int
    ) -> None:
        super().__init__(profile, settings, stock=True)
        self._max_num_queued_tokens = max_num_queued_tokens

    def _submit(self, index: int, offered: TraceRequest, max_tokens: int) -> None:
        if self._queued_tokens(offered.arrival_s) < self._max_num_queued_tokens:
            super()._submit(index, offered, max_tokens)
            return
        self._track(index, offered, max_tokens)
        self._leave(f"r{index}", "rejected")

    def _queued_tokens(self, at_s: float) -> int:
        # Arrivals of a step are submitted at its end, when first tokens of the step are out.
        return sum(
            track.prompt_tokens
            for track in self._tracks.values()
            if track.first_token_s is None or track.first_token_s > at_s
        )
