"""Can a model do a rule agent's work? An example: it chooses among the same tools' calls.

Asked in the background, never waited for: an answer counts in the ticks after it came, for
`fresh_s` seconds on the engine's clock. In that time the model's word stands, `none`
included, and the rule agent is silent; without one (slow, dead, garbage) the rule agent
speaks. What it chooses goes through the same arbiter, bounds and holds. It is told
numbers of the state and nothing that a tenant has written. Used by `roster`.
"""

import json
import logging
import os
import threading
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from hmas_agents.agents.calls import RuleAgent, RuleCall, call_for, step_of, stepped
from hmas_agents.agents.chat import ModelFault, ask, first_model, model_client, own_request
from hmas_agents.config import Concern, RuleModelConfig
from hmas_agents.states import ShortState
from serving.contracts import encode
from serving.contracts.rules import KNOBS

logger = logging.getLogger(__name__)

Menu = dict[str, RuleCall]
NONE = "none"
_MAX_TOKENS = 40  # {"choice": "..."} and a little air
_TASKS: dict[Concern, str] = {
    "tenant_shares": "tenant shares: whether tenants are held to their shares",
    "admission": "admission: how many requests run at once, and what share is refused",
    "batching": "batching: how many tokens one step may schedule",
    "prefill": "the balance of prefill and decode within a step",
}
_SYSTEM = (
    "You tune one setting of an LLM server every few seconds. You see its last seconds as "
    'JSON. Answer with JSON: {"choice": NAME}. Choose "none" unless the figures show a '
    "trouble that the change would cure."
)


class _Choice(BaseModel):
    """What the model may write."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    choice: str


@dataclass(frozen=True, slots=True)
class _Standing:
    """An answer: the call it chose (None for `none`, or once it has been made)."""

    asked_s: float
    call: RuleCall | None


class ModelRuleAgent:
    """A `RuleAgent` in place of another.

    Args:
        rule: what speaks while the model has no fresh answer.
        token: signs the questions; empty means HMAS_TOKEN.

    Attributes:
        faults: questions that came to nothing; the first of a kind is logged.
    """

    def __init__(self, config: RuleModelConfig, rule: RuleAgent, token: str = "") -> None:
        assert config.replaces
        self._concern: Concern = config.replaces
        self._config, self._rule, self._token = config, rule, token
        self._client = model_client(
            config.base_url, os.environ.get(config.api_key_env) or "none", config.timeout_s
        )
        self._model = config.name
        self._lock = threading.Lock()
        self._standing: _Standing | None = None
        self._asking: threading.Thread | None = None
        self._said = ""
        self.faults = 0

    def propose(self, state: ShortState) -> list[RuleCall]:
        """The model's fresh choice, once; else the rule agent's calls. Returns at once."""
        with self._lock:
            standing = self._standing
            if standing is not None and not self._is_fresh(standing, state.now_s):
                standing = self._standing = None
            if standing is not None:
                self._standing = replace(standing, call=None)
        self._ask_again(state)
        if standing is None:
            return self._rule(state)
        return [standing.call] if standing.call is not None else []

    def wait(self, timeout_s: float) -> None:
        """Until the question under way is over: for tests and orderly ends."""
        if self._asking is not None:
            self._asking.join(timeout_s)

    def close(self) -> None:
        """Close the connections; an answer that still comes counts for nothing."""
        self._client.close()

    def _is_fresh(self, standing: _Standing, now_s: float) -> bool:
        return 0 <= now_s - standing.asked_s <= self._config.fresh_s

    def _ask_again(self, state: ShortState) -> None:
        if self._asking is not None and self._asking.is_alive():
            return
        menu = menu_for(self._concern, state)
        self._asking = threading.Thread(
            target=self._ask, args=(state, menu), name="hmas-rule-model", daemon=True
        )
        self._asking.start()

    def _ask(self, state: ShortState, menu: Menu) -> None:
        try:
            if not self._model:
                self._model = first_model(self._client, self._config.timeout_s)
            answer = ask(self._client, self._request(state, menu), self._config.timeout_s)
            choice = _read(answer.text, menu)
        except (ModelFault, ValidationError) as error:
            self._fault(error)
            return
        with self._lock:
            self._standing = _Standing(state.now_s, menu.get(choice))

    def _fault(self, error: Exception) -> None:
        self.faults += 1
        kind = str(error).partition(":")[0] if isinstance(error, ModelFault) else "reply_invalid"
        if kind != self._said:
            logger.warning(
                "the model in place of %r gives nothing to go by, its rule agent acts: %s",
                self._concern,
                error,
            )
        self._said = kind

    def _request(self, state: ShortState, menu: Menu) -> dict[str, Any]:
        question = {
            "task": _TASKS[self._concern],
            "state": figures(state),
            "choices": {NONE: "change nothing", **{n: _shown(call) for n, call in menu.items()}},
        }
        schema = {
            "type": "object",
            "properties": {"choice": {"enum": [NONE, *menu]}},
            "required": ["choice"],
            "additionalProperties": False,
        }
        request: dict[str, Any] = {
            "model": self._model,
            "messages": [
                {"role": "system", "content": _SYSTEM},
                {"role": "user", "content": json.dumps(question)},
            ],
            "temperature": 0.0,
            "max_tokens": _MAX_TOKENS,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "choice", "schema": schema},
            },
        }
        if self._config.tenant:  # only vLLM knows vllm_xargs
            who = own_request(self._config.tenant, self._config.timeout_s, self._token)
            request["extra_body"] = {"vllm_xargs": who}
        return request


def _read(text: str, menu: Menu) -> str:
    choice = _Choice.model_validate_json(text).choice
    if choice != NONE and choice not in menu:
        raise ModelFault("reply_invalid", f"{choice[:40]!r} was not to choose from")
    return choice


def menu_for(concern: Concern, state: ShortState) -> Menu:
    """The calls of a concern that would change something now, by the name to choose them by.

    Each is a whole call within the tool's bounds and the envelope, so that a model names one and
    cannot invent another. The knobs' rows name the steps.
    """
    menu: Menu = {}
    for limit, knob in KNOBS.items():
        if knob.concern != concern or (knob.needs and not getattr(state, knob.needs)):
            continue
        for name, way in ((knob.down, -1), (knob.up, 1)):
            call = call_for(limit, stepped(limit, way, state), state, "chosen by the model")
            if step_of(call, state.limits):
                menu[name] = call
    return menu


def figures(state: ShortState) -> dict[str, Any]:
    """What a model is told of a state: numbers, and the limits in force; no names of tenants."""
    names = (
        "waiting", "running", "decoding", "prefilling", "queued_prefill_s", "oldest_wait_s",
        "p10_laxity_s", "hopeless_share", "decode_slack_p10_s", "kv_used", "kv_predicted_peak",
        "preemptions_per_s", "tpot_miss_share", "ttft_miss_share",
        "max_token_budget", "max_active_requests", "sheddable_waiting",
        "sheddable_in_vain_share", "in_vain_share",
    )  # fmt: skip
    shares = sorted(state.offered_by_tenant.values(), reverse=True)
    known = {name: getattr(state, name) for name in names}
    known |= {"largest_tenant_shares": shares[:3], "limits": encode(state.limits)}
    rounded: dict[str, Any] = json.loads(
        json.dumps(known), parse_float=lambda text: round(float(text), 3)
    )
    return rounded


def _shown(call: RuleCall) -> str:
    args = {key: value for key, value in call["args"].items() if key != "reason"}
    return f"{call['name']} {json.dumps(args)}"
