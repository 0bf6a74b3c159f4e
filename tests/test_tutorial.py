"""The ten-minute start: its commands run as they stand, in a copy of this repository."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.agents.model_server import completion, proposals, serving

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("tools", "hmas_agents", "graphs", "prompts", "evals")
BLOCKS = re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / "start.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """Somewhere to edit prompts and rules in."""
    folder = tmp_path_factory.mktemp("tutorial")
    for name in COPIED:
        ignored = shutil.ignore_patterns("__pycache__", "results")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    # Nobody edits it here, and compiled code is kept by the place of its source.
    (folder / "serving").symlink_to(ROOT / "serving")
    (folder / "hmas").write_text(
        f"#!/bin/sh\nexec {sys.executable} -c 'from hmas_agents.cli import main; main()' \"$@\"\n"
    )
    (folder / "hmas").chmod(0o755)
    # What `git checkout` would do, without a repository.
    (folder / "git").write_text(f'#!/bin/sh\ncp "{ROOT}/$2" "$2"\n')
    (folder / "git").chmod(0o755)
    return folder


def run(folder: Path, block: str) -> list[str]:
    """Every line of a block in turn; what each printed."""
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PYTHONPATH": str(folder), "PATH": path, "COLUMNS": "120"}
    printed = []
    for line in block.strip().splitlines():
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", line], cwd=folder, env=environment,
            capture_output=True, text=True, timeout=800, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}: {done.stderr[-2000:]}"
        printed.append(done.stdout)
    return printed


def test_inspect_edit_a_rule_and_the_prompt(copy):
    inspect, rule, prompt = BLOCKS
    shorter = inspect.replace(".toml --out", ".toml --minutes 2 --out")
    _, _, listed, told, why = run(copy, shorter)
    assert "first" in listed
    assert "checked" in told
    assert "MISSED" in why
    assert "twin" in why

    _, replayed, _ = run(copy, rule)
    assert "regret" in replayed
    assert "edf:kappa=10 (rules)" in replayed, "the edit changes a proposal"
    assert (copy / "hmas_agents" / "rule_table.py").read_text() == (
        ROOT / "hmas_agents" / "rule_table.py"
    ).read_text()

    with serving(completion(proposals("srpt"))) as model:
        local = prompt.replace("http://127.0.0.1:8000/v1", model.url)
        new, diff, _, check, replay = run(copy, local)
        assert model.asked
    assert "3" in new
    assert "+" in diff
    assert "v3" in check
    assert "srpt" in replay
    assert "regret" in replay
