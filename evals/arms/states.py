"""What do the arms `threshold` and `tree` see? The numbers of the controller's own two states."""

from hmas_agents.config import Config
from hmas_agents.engine_watch import EngineWatch
from hmas_agents.states import LongState, ShortState
from serving.engines.protocol import Engine

STATES = (
    "load", "rate_rps", "rate_trend", "dispersion", "prompt_p50", "prompt_p90", "output_p50",
    "psi_lengths", "missed", "missed_ttft", "missed_tpot", "waiting", "running",
    "queued_prefill_s", "oldest_wait_s", "hopeless_share", "decode_slack_s", "kv_used",
    "kv_predicted_peak", "preemptions_per_s",
)  # fmt: skip
_SLACK_WITHOUT_DECODES_S = 1.0


class StateReader:
    """Follows one engine, as the control loop does."""

    def __init__(self, engine: Engine, config: Config) -> None:
        self._watch = EngineWatch(engine, config, None)

    def look(self) -> None:
        """Take in what happened since the last look; at each short tick."""
        self._watch.look()

    def read(self) -> dict[str, float]:
        """The states now, by name."""
        _, short = self._watch.look()
        return state_values(short, self._watch.long_state())


def state_values(short: ShortState, long: LongState) -> dict[str, float]:
    """Numbers that a threshold can be set on; what is not known yet reads as all is well."""
    slack_s, attainment = short.decode_slack_p10_s, long.attainment
    values = (
        long.load or 0.0, long.rate_rps, long.rate_trend,
        max(long.dispersion.values(), default=0.0),
        long.prompt_p50 or 0.0, long.prompt_p90 or 0.0, long.output_p50 or 0.0, long.psi_lengths,
        0.0 if attainment is None else 1.0 - attainment,
        long.misses.get("ttft_queue", 0.0) + long.misses.get("ttft_execution", 0.0),
        long.misses.get("tpot", 0.0),
        float(short.waiting), float(short.running), short.queued_prefill_s, short.oldest_wait_s,
        short.hopeless_share, _SLACK_WITHOUT_DECODES_S if slack_s is None else slack_s,
        short.kv_used, short.kv_predicted_peak, short.preemptions_per_s,
    )  # fmt: skip
    return dict(zip(STATES, values, strict=True))
