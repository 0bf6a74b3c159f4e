"""Where does LangGraph's own tooling find the graphs? `langgraph.json` points here.

Builds each graph on the engine and configuration that `hmas run` would use:
`HMAS_CONFIG` names the TOML file (default: `hmas.toml` here, else the defaults).
"""

import os
from pathlib import Path
from typing import Any

from langgraph.graph.state import CompiledStateGraph

from graphs.long_horizon import build_long_horizon
from graphs.parts import Parts, build_parts
from graphs.short_horizon import build_short_horizon
from hmas_agents.config import default_config_path, load_config
from serving.engines.live import read_token
from serving.fleet.connect import connect


def make_short_horizon() -> CompiledStateGraph[Any, Any, Any, Any]:
    """The short horizon, in advise mode unless the configuration says otherwise."""
    return build_short_horizon(_parts())


def make_long_horizon() -> CompiledStateGraph[Any, Any, Any, Any]:
    """The long horizon; give it `{"trigger": "tick", "budget_s": 20}`."""
    return build_long_horizon(_parts())


def _parts() -> Parts:
    named = os.environ.get("HMAS_CONFIG")
    config = load_config(Path(named) if named else default_config_path())
    token = read_token(config.engine.token_file)
    return build_parts(
        connect(config.engine.url, token),
        config,
        None,
        run_label="studio",
        controller_id=f"hmas-studio-{os.getpid()}",
        on_decision=lambda _: None,
        token=token,
    )
