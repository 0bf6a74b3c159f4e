"""How does a command end? Exit codes, the words of an error, and values that no command takes.

`hmas_agents.cli` asks here for every command, so that none has codes, prefixes or checks of its
own: a command raises an error of the table, or a `CommandError`.
"""

import math
import os
from pathlib import Path
from typing import Any

import typer

DONE, FAILED, UNUSABLE, CONFLICT, INTERRUPTED = 0, 1, 2, 3, 130
EXIT_CODES = {
    DONE: "done",
    FAILED: "what was asked for failed, got worse, or cannot be reached",
    UNUSABLE: "wrong use, or input that cannot be used (no such id, no token, a broken file)",
    CONFLICT: "refused: another controller owns the engine",
    INTERRUPTED: "cut short by Ctrl-C",
}
# Errors that explain themselves, by name: importing their modules would take seconds.
KNOWN_ERRORS = {
    "ArmError": FAILED,
    "CapacityError": FAILED,
    "CalibrationError": UNUSABLE,
    "CaseError": UNUSABLE,
    "CassetteError": UNUSABLE,
    "ChangeError": UNUSABLE,
    "CompareError": UNUSABLE,
    "ConfigError": UNUSABLE,
    "ContractError": UNUSABLE,
    "ControllerConflict": CONFLICT,
    "EngineUnavailable": FAILED,
    "ForkError": UNUSABLE,
    "LedgerError": UNUSABLE,
    "ModelError": FAILED,
    "ModelFault": FAILED,
    "PhrasingError": UNUSABLE,
    "PromptError": UNUSABLE,
    "RayMissing": UNUSABLE,
    "ReplayError": FAILED,
    "ServerError": FAILED,
    "SiliconError": UNUSABLE,
    "SituationError": UNUSABLE,
    "SuiteError": UNUSABLE,
    "TelemetryError": UNUSABLE,
    "TokenCountError": FAILED,
    "TeachError": FAILED,
    "TokenError": UNUSABLE,
    "ToldError": UNUSABLE,
    "ToolError": UNUSABLE,
    "TraceError": UNUSABLE,
    "UiError": UNUSABLE,
    "UnsupportedVLLM": FAILED,
    "WorkerError": FAILED,
    "WorkloadError": UNUSABLE,
}
MAX_INTEGER = 2**63 - 1  # of SQLite


class CommandError(Exception):
    """Ends a command with one line on standard error and an exit code of the table."""

    def __init__(self, message: str, code: int = UNUSABLE) -> None:
        super().__init__(message)
        self.code = code


def explain(error: Exception) -> tuple[int, str]:
    """The exit code of an error, and what is said of it after `hmas COMMAND: `."""
    if isinstance(error, CommandError):
        return error.code, str(error)
    if hasattr(error, "format_message"):  # Typer's own, in whichever module it keeps them
        return UNUSABLE, _usage(error)
    for cls in type(error).__mro__:  # the narrowest name decides
        if cls.__name__ in KNOWN_ERRORS:
            return KNOWN_ERRORS[cls.__name__], str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return UNUSABLE, f"{error.filename}: cannot be used: {error.strerror}"
    return FAILED, (
        f"internal error, {type(error).__name__}: {error} "
        "(HMAS_DEBUG=1 shows where; please report it)"
    )


def _usage(error: Any) -> str:
    """An error of use; one that we raise names the option itself."""
    from serving.contracts.near_names import near

    named = getattr(error, "param", None) or getattr(error, "param_hint", None)
    own = isinstance(error, typer.BadParameter) and not named
    message = error.message if own else error.format_message()
    if (possible := getattr(error, "possibilities", None)) is not None:  # any, near or not
        one = near(error.option_name, possible)
        message = error.message + (f" - did you mean {one}?" if one else "")
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "hmas"
    return f"{message.rstrip('.')} ({path} --help says more)"


def table() -> str:
    """The exit codes, for the end of `hmas --help`."""
    return "Exit codes: " + "; ".join(f"{code} {what}" for code, what in EXIT_CODES.items())


def check_values(command: Any) -> None:
    """Let a command and all below it refuse numbers that nothing can use, and paths for `--out`.

    Infinite and not-a-number values, numbers beyond SQLite's, a folder to write to that is a file
    or below one, and a file to write (`metavar="FILE"`) that is a folder or in a missing one.
    """
    for inner in getattr(command, "commands", {}).values():
        check_values(inner)
    for param in command.params:
        param.callback = _Checked(param.callback)


class _Checked:
    """A parameter's callback, after the check of its value."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __call__(self, context: Any, param: Any, value: Any) -> Any:
        for each in value if isinstance(value, list | tuple) else (value,):
            if problem := _problem(param, each):
                raise typer.BadParameter(problem, ctx=context, param=param)
        return self._inner(context, param, value) if self._inner else value


def _problem(param: Any, value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} is not a number that can be used"
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        return f"{value} is too large"
    if isinstance(value, Path) and param.name == "out":
        return _file_problem(value) if param.metavar == "FILE" else _folder_problem(value)
    return ""


def _folder_problem(path: Path) -> str:
    there = next(each for each in (path.absolute(), *path.absolute().parents) if each.exists())
    if not there.is_dir():
        return f"{there} is a file, so there can be no folder {path}"
    return "" if os.access(there, os.W_OK) else f"{there} cannot be written to"


def _file_problem(path: Path) -> str:
    if path.is_dir():
        return f"{path} is a folder: name a file"
    return "" if path.absolute().parent.is_dir() else f"there is no folder {path.parent}"
