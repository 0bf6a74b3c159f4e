"""Is everything compiled before the first step?"""

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

from serving import core

ROOT = Path(__file__).resolve().parents[3]
RUN = """
from tests.serving.core.test_warm import compiled_for
from tests.serving.samples import mixed_load, profile, decision
from serving.engines.simulated import SimulatedEngine
from serving.contracts.settings import EngineSettings
from serving.contracts import Limits
from serving.contracts.rules import RULES, with_rules

machine = profile(900, max_active_requests=32)
engine = SimulatedEngine(machine, EngineSettings())
before = compiled_for()
limits = with_rules(Limits(machine.max_active_requests, machine.token_budget), RULES)
engine.apply(decision(1, "fair", limits=limits, ttl_s=1e4))
engine.run(mixed_load(80, 60.0, seed=1), [(0.5, engine.snapshot)])
print({name: new for name, new in compiled_for().items() if new != before.get(name)})
"""


def compiled_for() -> dict[str, list[str]]:
    """Argument types that each compiled function of the core was compiled for."""
    found = {}
    for module in pkgutil.iter_modules(core.__path__):
        for name, one in vars(importlib.import_module(f"serving.core.{module.name}")).items():
            if hasattr(one, "signatures"):
                found[f"{module.name}.{name}"] = sorted(map(str, one.signatures))
    return found


def test_no_step_of_the_hook_waits_for_the_compiler():
    done = subprocess.run(
        [sys.executable, "-c", RUN], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "{}"
