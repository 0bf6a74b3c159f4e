"""The command line: quick help, lazy imports, near misses, and one clear line per error."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from hmas_agents import cli
from hmas_agents.commands.checks import PACKAGES
from hmas_agents.commands.exits import EXIT_CODES, KNOWN_ERRORS, CommandError
from hmas_agents.config import ConfigError
from serving.contracts import ContractError
from serving.engines.live import TokenError
from serving.engines.protocol import EngineUnavailable

ROOT = Path(__file__).parents[2]


def hmas(capsys, *argv):
    """Exit code, standard output and standard error of a command run in this process."""
    with pytest.raises(SystemExit) as left:
        cli.main(argv)
    captured = capsys.readouterr()
    return left.value.code or 0, captured.out, captured.err


@pytest.fixture
def stub(monkeypatch):
    """Make `hmas stub` run a function of the test's."""

    def _stub(function, passes_through=False):
        entry = cli.CommandEntry(
            "tests.hmas_agents.test_cli:stub_target", "A stub.", passes_through
        )
        monkeypatch.setitem(cli.COMMANDS, "stub", entry)
        monkeypatch.setattr("tests.hmas_agents.test_cli.stub_target", function, raising=False)

    return _stub


def test_help_lists_every_command_with_one_line(capsys):
    code, out, _ = hmas(capsys, "--help")
    assert code == 0
    for name, entry in cli.COMMANDS.items():
        assert name in out
        assert entry.help in out


def test_help_imports_neither_a_command_nor_a_heavy_library():
    script = (
        "import sys\n"
        "from hmas_agents.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "heavy = {'graphs', 'evals', 'serving', 'tools', 'prompts', 'vllm', 'langgraph'}\n"
        "heavy |= {'openai', 'torch', 'numpy', 'matplotlib', 'httpx', 'pydantic'}\n"
        "sys.exit(f'imported {loaded & heavy}' if loaded & heavy else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "name", [n for n, e in cli.COMMANDS.items() if e.target.startswith("hmas_agents.")]
)
def test_each_command_of_ours_teaches(capsys, name):
    code, out, _ = hmas(capsys, name, "--help")
    assert code == 0
    assert f"hmas {name}" in out


@pytest.mark.parametrize(("typed", "meant"), [("statsu", "status"), ("dokter", "doctor")])
def test_an_unknown_command_suggests_the_nearest(capsys, typed, meant):
    code, _, err = hmas(capsys, typed)
    assert code == 2
    assert f"no command '{typed}'" in err
    assert f"did you mean '{meant}'?" in err


def test_an_unknown_command_like_no_other_lists_them(capsys):
    code, _, err = hmas(capsys, "xyzzy")
    assert code == 2
    assert "serve" in err


def test_unknown_flags_pass_through_where_the_table_says_so(capsys, stub):
    def target(ctx: typer.Context, port: int = 8000) -> None:
        typer.echo(f"{port} {ctx.args}")

    stub(target, passes_through=True)
    code, out, _ = hmas(capsys, "stub", "--port", "9000", "--dtype", "float16", "model")
    assert (code, out) == (0, "9000 ['--dtype', 'float16', 'model']\n")


def test_unknown_flags_are_refused_elsewhere(capsys, stub):
    stub(lambda: None)
    code, _, err = hmas(capsys, "stub", "--nope")
    assert code == 2
    assert "--nope" in err


class SuiteError(ValueError):
    """Known to the CLI by its name, like the one of the evals."""


class WorkerError(RuntimeError):
    """As above: what was asked for failed."""


class ControllerConflict(RuntimeError):
    """As above: refused."""


class NarrowError(ConfigError):
    """Known by its base class."""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError, 2), (ContractError, 2), (SuiteError, 2), (NarrowError, 2), (TokenError, 2),
        (CommandError, 2), (EngineUnavailable, 1), (WorkerError, 1), (ControllerConflict, 3),
    ],
)  # fmt: skip
def test_known_errors_are_one_line_with_the_command_and_a_code_of_the_table(
    capsys, stub, error, code
):
    def target() -> None:
        raise error("x.toml:3: key: wrong")

    stub(target)
    assert hmas(capsys, "stub") == (code, "", "hmas stub: x.toml:3: key: wrong\n")


def test_every_error_known_by_name_exists():
    sources = "".join(path.read_text() for name in PACKAGES for path in (ROOT / name).rglob("*.py"))
    assert [e for e in KNOWN_ERRORS if f"class {e}(" not in sources] == []


def test_a_file_that_cannot_be_used_is_no_bug_of_ours(capsys, stub, tmp_path):
    stub(lambda: (tmp_path / "file").write_text("x") and (tmp_path / "file" / "x").write_text("y"))
    code, _, err = hmas(capsys, "stub")
    assert (code, err) == (2, f"hmas stub: {tmp_path}/file/x: cannot be used: Not a directory\n")


def test_ctrl_c_is_exit_code_130(capsys, stub):
    def target() -> None:
        raise KeyboardInterrupt

    stub(target)
    assert hmas(capsys, "stub") == (130, "", "hmas stub: interrupted\n")


def every_command() -> list[tuple[str, ...]]:
    """The words of each command, groups and what is in them."""

    def below(path, command):
        yield path
        for name, inner in getattr(command, "commands", {}).items():
            yield from below((*path, name), inner)

    return [path for name in cli.COMMANDS for path in below((name,), cli.load_command(name))]


@pytest.mark.parametrize("path", every_command(), ids=" ".join)
def test_every_command_helps_and_refuses_in_one_form(capsys, monkeypatch, path):
    """Its help names only codes of the table and fits 80 columns; wrong use is one line, code 2."""
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = hmas(capsys, *path, "--help")
    assert code == 0
    told = " ".join(out.split())
    for words in re.findall(r"[Ee]xit(?: code)?s?:? (\d+)", told):
        assert int(words) in EXIT_CODES
    assert max(map(len, out.splitlines())) <= 80
    shown = [line.rstrip() for line in out.splitlines()]
    for line in help_of(path).splitlines():
        if line.startswith(("hmas ", "  ")):  # an example, or its comment: never wrapped
            assert f" {line}" in shown
    if path == ("serve",):  # passes what it does not know on to vLLM
        return
    code, out, err = hmas(capsys, *path, "--no-such-option")
    assert (code, out) == (2, "")
    command = " ".join(("hmas", *path))
    assert err.startswith(f"{command}: ")
    assert err.endswith(f"({command} --help says more)\n")
    assert err.count("\n") == 1


def test_an_option_takes_the_same_thing_in_every_command():
    taken: dict[str, set[str]] = {}
    for path in every_command():
        command = cli.load_command(path[0])
        for name in path[1:]:
            command = command.commands[name]
        for param in command.params:
            taken.setdefault(param.name, set()).add(str(param.metavar))
    assert taken["out"] == {"FILE", "FOLDER"}
    assert {name: taken[name] for name in cli.PLACEHOLDERS if name != "out"} == {
        name: {what} for name, what in cli.PLACEHOLDERS.items() if name != "out"
    }


def help_of(path: tuple[str, ...]) -> str:
    command = cli.load_command(path[0])
    for name in path[1:]:
        command = command.commands[name]
    return command.help or ""


def test_the_help_ends_in_the_exit_codes(capsys):
    told = " ".join(hmas(capsys, "--help")[1].split())
    for code, what in EXIT_CODES.items():
        assert f"{code} {what}" in told


def test_our_own_bugs_are_one_line_and_exit_code_1(capsys, stub):
    def target() -> None:
        raise ZeroDivisionError("oops")

    stub(target)
    code, out, err = hmas(capsys, "stub")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "internal error, ZeroDivisionError: oops" in err


def test_hmas_debug_shows_the_traceback(monkeypatch, stub):
    def target() -> None:
        raise ConfigError("x")

    stub(target)
    monkeypatch.setenv("HMAS_DEBUG", "1")
    with pytest.raises(ConfigError):
        cli.main(["stub"])


def test_a_commands_own_exit_code_is_kept(capsys, stub):
    def target() -> None:
        raise typer.Exit(3)

    stub(target)
    assert hmas(capsys, "stub")[0] == 3


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("hmas st", "status"), ("hmas trace sh", "show"), ("hmas run --mo", "--mode")],
)
def test_the_shell_completes_commands_and_options(typed, offered):
    asked = {"_HMAS_COMPLETE": "complete_bash", "COMP_WORDS": typed}
    asked["COMP_CWORD"] = str(len(typed.split()) - 1)
    done = subprocess.run(
        [sys.executable, "-c", "from hmas_agents.cli import main; main()"],
        env={**os.environ, **asked}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert offered in done.stdout.split()
