"""Is the Dockerfile in order, and does it add the wheel and nothing else to vLLM's image?"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.serving.deploy.rendered import DEPLOY, absent

DOCKERFILE = DEPLOY / "Dockerfile"


def stages():
    """The instructions of each stage by its name, in order, comments left out."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.M).replace("\\\n", " ")
    found: dict[str, list[str]] = {}
    for line in filter(None, text.splitlines()):
        if match := re.match(r"FROM \S+ AS (\w+)", line):
            found[match[1]] = []
        elif found:
            found[list(found)[-1]].append(line)
    return found


def test_hadolint_finds_nothing():
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    linter = shutil.which("hadolint", path=path)
    if linter is None:
        absent("hadolint")
    done = subprocess.run([linter, DOCKERFILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_vllms_image_gets_the_wheel_and_nothing_else():
    assert list(stages())[-1] == "engine"  # what is built unless a target is named
    (only,) = stages()["engine"]
    assert only.startswith("RUN --mount=type=bind,from=wheel")
    assert only.split()[-2:] == ["--no-deps", "/wheels/*.whl"]


def test_the_controllers_image_runs_as_nobody_and_is_the_command():
    controller = stages()["controller"]
    assert "USER 65532:65532" in controller
    assert 'ENTRYPOINT ["hmas"]' in controller


def test_what_the_wheel_is_made_of_is_not_left_out():
    ignored = set((DEPLOY / "Dockerfile.dockerignore").read_text().split())
    project = tomllib.loads((DEPLOY.parents[1] / "pyproject.toml").read_text())
    needed = {name.split(".")[0] for name in project["tool"]["setuptools"]["packages"]}
    assert not ignored & {*needed, "pyproject.toml", project["project"]["readme"], "LICENSE"}
