"""What do the agents see? The short- and long-horizon QoS states.

Built by `hmas_agents.feedback` from snapshots and the journal; read by the rule
agents, the rule table, the policy agent's summary, the ledger and the CLI.
Fractions are 0..1, times seconds, rates per second; None means "not enough data".
"""

from dataclasses import dataclass, field

from hmas_agents.intent.change import Kind
from serving.contracts import SLO, Limits


@dataclass(frozen=True, slots=True)
class ShortState:
    """The last few seconds (1-5 s): what the rule agents act on.

    Counts are summed over `ranks`; `limits` and the two maxima hold for each of them.
    `offered_by_tenant` is each tenant's share of the prompt tokens that came, in as many
    requests as `requests_by_tenant` says; `weight_by_tenant` is what the contract in force gives
    the tenant itself. `sheddable` classes may be refused.
    `sheddable_in_vain_share`: of their requests that wait or were served in time lately, the
    share that waits in vain; `in_vain_share`: the same of the other classes.
    A step costs `step_base_s` and `decode_s` more per decode, at the batch's mean context (0:
    unknown). `tpot_targets`: the TPOT targets (s) of the requests that came, tightest first,
    each with the share of requests that have it.
    """

    now_s: float
    epoch: int
    policy: str
    limits: Limits
    max_token_budget: int
    max_active_requests: int
    waiting: int
    running: int
    decoding: int
    prefilling: int
    queued_prefill_s: float
    oldest_wait_s: float
    min_laxity_s: float | None
    p10_laxity_s: float | None
    hopeless_share: float
    decode_slack_p10_s: float | None
    step_time_bias: float
    kv_used: float
    kv_predicted_peak: float
    preemptions_per_s: float
    tpot_miss_share: float | None
    ttft_miss_share: float | None
    attainment_by_class: dict[str, float] = field(default_factory=dict)
    attainment_by_tenant: dict[str, float] = field(default_factory=dict)
    ranks: int = 1
    offered_by_tenant: dict[str, float] = field(default_factory=dict)
    requests_by_tenant: dict[str, int] = field(default_factory=dict)
    weight_by_tenant: dict[str, float] = field(default_factory=dict)
    sheddable: tuple[str, ...] = ()
    sheddable_waiting: int = 0
    sheddable_in_vain_share: float = 0.0
    in_vain_share: float = 0.0
    step_base_s: float = 0.0
    decode_s: float = 0.0
    tpot_targets: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class OperatorChange:
    """A change that operators told in words, in force or to come. Their words are not in it.

    `amount` is the factor or share that `hmas_agents.intent.change` has for this `kind`. Times are
    the engine's; `until_s` is None until it is taken back. Without names it is for all.
    """

    kind: Kind
    amount: float
    from_s: float
    until_s: float | None = None
    tenant: str | None = None
    slo_class: str | None = None


@dataclass(frozen=True, slots=True)
class PastProposal:
    """What the policy agent proposed at `at_s`, and what came of it.

    Both gains are differences in attainment (0..1) to what was in force. `predicted_gain` is the
    twin's. `seen_gain` is known when the window is over, of what was adopted only: it differs from
    `predicted_gain` as reality did from the prediction. `outcome`: adopted, or why not.
    """

    at_s: float
    policy: str
    params: dict[str, float]
    outcome: str
    predicted_gain: float | None = None
    seen_gain: float | None = None


@dataclass(frozen=True, slots=True)
class LongState:
    """The last minutes (60-300 s): what a policy is chosen from.

    `policy` and `params` are what is in force;
    `load` is offered work over capacity as the engine's cost model prices it;
    `dispersion` is the index of dispersion of arrivals at 1, 10 and 60 s;
    `misses` maps a cause (contracts.Miss) to its share of all finished requests;
    `alarms` names what fired (`rate_up`, `rate_down`, `lengths`, `mix`);
    `own_*` are the controller's own requests, which nothing else but `load` counts.
    Of the contract in force: `weights` and `floors` of tenants and `class_weights` other than 1 and
    0, `targets` of SLO classes other than the built-in ones. `told`: by operators, in order;
    `proposed`: newest first.
    """

    now_s: float
    window_s: float
    policy: str
    epoch: int
    arrivals: int
    rate_rps: float
    rate_trend: float
    load: float | None
    dispersion: dict[str, float]
    prompt_p50: float | None
    prompt_p90: float | None
    output_p50: float | None
    output_p90: float | None
    psi_lengths: float
    psi_mix: float
    alarms: tuple[str, ...]
    goodput_rps: float | None
    attainment: float | None
    attainment_by_class: dict[str, float]
    attainment_by_tenant: dict[str, float]
    misses: dict[str, float]
    length_coverage: float | None
    e2e_p95_s: float | None
    waiting: int
    queued_prefill_s: float
    params: dict[str, float] = field(default_factory=dict)
    own_arrivals: int = 0
    own_attainment: float | None = None
    weights: dict[str, float] = field(default_factory=dict)
    class_weights: dict[str, float] = field(default_factory=dict)
    floors: dict[str, float] = field(default_factory=dict)
    targets: dict[str, SLO] = field(default_factory=dict)
    told: tuple[OperatorChange, ...] = ()
    proposed: tuple[PastProposal, ...] = ()
