"""Is compiled code kept, made anew when any of its sources changes, and done without if it must?"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from serving.core.jit import compiled_in_place

JIT = Path(__file__).resolve().parents[3] / "serving" / "core" / "jit.py"
CALLER = """
from serving.core.jit import compiled
from serving.policies.callee import callee

@compiled
def caller(x):
    return callee(x) + 1

print(caller(1), sum(caller.stats.cache_hits.values()))
"""


def callee(factor: int) -> str:
    return (
        "from serving.core.jit import compiled\n\n"
        f"@compiled\ndef callee(x):\n    return {factor} * x\n"
    )


def run(tree: Path, cache: Path) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", "import serving.core.caller"], cwd=tree, text=True,
        env=os.environ | {"PYTHONPATH": str(tree), "HMAS_CACHE": str(cache)},
        capture_output=True, check=True,
    )  # fmt: skip
    return done.stdout.strip(), done.stderr


def build(tree: Path) -> None:
    for folder in ("core", "policies"):
        (tree / "serving" / folder).mkdir(parents=True)
    shutil.copy(JIT, tree / "serving" / "core" / "jit.py")
    (tree / "serving" / "core" / "caller.py").write_text(CALLER)
    (tree / "serving" / "policies" / "callee.py").write_text(callee(10))


def test_code_is_kept_until_any_source_changes_also_that_of_a_called_function(tmp_path):
    build(tmp_path)
    cache = tmp_path / "cache"
    assert run(tmp_path, cache) == ("11 0", "")
    assert run(tmp_path, cache) == ("11 1", "")
    (tmp_path / "serving" / "policies" / "callee.py").write_text(callee(20))
    assert run(tmp_path, cache) == ("21 0", "")


def test_code_of_another_version_is_never_under_a_name_that_this_one_reads(tmp_path):
    """Between writing index and code, a process is read by one that started beside it."""
    build(tmp_path)
    cache = tmp_path / "cache"
    run(tmp_path, cache)
    before = {file.relative_to(cache) for file in cache.rglob("*.nbc")}
    (tmp_path / "serving" / "policies" / "callee.py").write_text(callee(20))
    run(tmp_path, cache)
    after = {file.relative_to(cache) for file in cache.rglob("*.nbc")}
    assert before
    assert after
    assert not before & after


def test_broken_code_on_disk_is_compiled_again_with_a_warning(tmp_path):
    build(tmp_path)
    cache = tmp_path / "cache"
    run(tmp_path, cache)
    for file in cache.rglob("*.nbi"):
        file.write_bytes(b"nonsense")
    out, errors = run(tmp_path, cache)
    assert out == "11 0"
    assert "cannot be read" in errors


def test_without_a_folder_to_write_it_works_and_says_so_once(tmp_path):
    build(tmp_path)
    (tmp_path / "file").write_text("not a folder")
    out, errors = run(tmp_path, tmp_path / "file")
    assert out == "11 0"
    assert errors.count("set HMAS_CACHE") == 1


def test_code_that_works_in_place_cannot_make_an_array():
    with pytest.raises(Exception, match="NRT required"):
        compiled_in_place(lambda count: np.zeros(count) + 1)(3)
    values = np.zeros(3)
    compiled_in_place(lambda found: found.fill(2.0))(values)
    assert values.tolist() == [2.0, 2.0, 2.0]
