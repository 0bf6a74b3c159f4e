"""Between which calls may a model choose in a rule agent's place? Bounded ones, by concern.

Each entry is a whole tool call within the tool's bounds and the envelope, so that a model
names one and cannot invent another. The knobs' rows name the steps. Used by `model_rule_agent`.
"""

from hmas_agents.agents.calls import RuleCall, call_for, step_of, stepped
from hmas_agents.config import Concern
from hmas_agents.states import ShortState
from serving.rules import KNOBS

Menu = dict[str, RuleCall]
_REASON = "chosen by the model"


def menu_for(concern: Concern, state: ShortState) -> Menu:
    """The calls of a concern that would change something now, by the name to choose them by."""
    menu: Menu = {}
    for limit, knob in KNOBS.items():
        if knob.concern != concern or (knob.needs and not getattr(state, knob.needs)):
            continue
        for name, way in ((knob.down, -1), (knob.up, 1)):
            call = call_for(limit, stepped(limit, way, state), state, _REASON)
            if step_of(call, state.limits):
                menu[name] = call
    return menu
