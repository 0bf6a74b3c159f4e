"""What do a user's own vLLM arguments say of what H-MAS sets? Asked by the launcher.

vLLM takes `--additional-config` as JSON, by dotted keys (`--additional-config.a.b 1`), shortened,
and from the YAML file of `--config`; of JSON it keeps the last one, and dotted keys replace all
JSON. Whatever slips through here is caught when the server starts (`serving.contracts.in_force`).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from serving.contracts import ContractError

ADDITIONAL, SCHEDULER, CONFIG = "--additional-config", "--scheduler-cls", "--config"
HOOK = "serving.scheduler.hmas_scheduler"
REPO = Path(__file__).resolve().parents[2]
_SHORTEST = len("--add")  # argparse takes a flag's beginning for the flag, where only one fits


@dataclass(slots=True)
class Given:
    """What the user gave.

    Attributes:
        rest: the arguments that go to vLLM as they are.
        hmas: settings of ours under `hmas` of the additional config.
        others: the additional config's other keys.
        is_dotted: whether `rest` sets other keys by dotted arguments.
        model: the model that the YAML file names; empty if it names none.
        scheduler: the hook, or a scheduler of this repository that is made of it.
    """

    rest: list[str] = field(default_factory=list)
    hmas: dict[str, Any] = field(default_factory=dict)
    others: dict[str, Any] = field(default_factory=dict)
    is_dotted: bool = False
    model: str = ""
    scheduler: str = HOOK

    def arguments(self, hmas: Mapping[str, Any]) -> list[str]:
        """The additional config with `hmas` in it, in the form that vLLM does not replace."""
        if self.is_dotted:
            return [f"{ADDITIONAL}.hmas", json.dumps(hmas)]
        return [ADDITIONAL, json.dumps({**self.others, "hmas": hmas})]


def read_arguments(arguments: Sequence[str]) -> Given:
    """Sort out what the user's arguments say of the additional config, scheduler and model.

    Raises:
        ContractError: they contradict themselves, or name another scheduler.
    """
    given, tokens = Given(), iter(arguments)
    for token in tokens:
        name, equals, value = token.partition("=")
        flag, dot, path = name.partition(".")
        if _means(flag, ADDITIONAL):
            value = value if equals else _next(tokens, token)
            if dot and path.split(".")[0].rstrip("+") != "hmas":
                given.is_dotted = True
                given.rest += [f"{ADDITIONAL}.{path}", value]
            else:
                _add(given, _nested(path, value) if dot else _object(value, ADDITIONAL), name)
        elif _means(flag, SCHEDULER) and not dot:
            given.scheduler = _own(value if equals else _next(tokens, token), SCHEDULER)
        elif flag == CONFIG and not dot:
            file = value if equals else _next(tokens, token)
            _read_file(given, Path(file))
            given.rest += [CONFIG, file]
        else:
            given.rest.append(token)
    if given.is_dotted and given.others:
        raise ContractError(
            f"{ADDITIONAL} gives {', '.join(sorted(given.others))} in JSON and other keys by "
            "dotted arguments: vLLM would drop the JSON; give all of them in one form"
        )
    return given


def merged(user: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """The user's settings under `hmas` and those of our options, together.

    Raises:
        ContractError: names the key that has two values.
    """
    for key in user.keys() & ours.keys():
        if user[key] != ours[key]:
            raise ContractError(
                f"{ADDITIONAL} hmas.{key} is {user[key]!r}, and an option of `hmas serve` says "
                f"{ours[key]!r}: give it once"
            )
    return {**user, **ours}


def _means(flag: str, full: str) -> bool:
    flag = flag.replace("_", "-")
    shortest = _SHORTEST if full == ADDITIONAL else len("--scheduler-c")
    return len(flag) >= shortest and full.startswith(flag)


def _next(tokens: Iterator[str], flag: str) -> str:
    value = next(tokens, None)
    if value is None:
        raise ContractError(f"{flag} needs a value")
    return value


def _add(given: Given, more: Mapping[str, Any], source: str) -> None:
    ours = more.get("hmas", {})
    if not isinstance(ours, dict):
        raise ContractError(f"{source}: hmas must be an object, not {ours!r}")
    _put(given.hmas, ours, source, "hmas.")
    _put(given.others, {key: more[key] for key in more if key != "hmas"}, source, "")


def _put(into: dict[str, Any], more: Mapping[str, Any], source: str, prefix: str) -> None:
    for key, value in more.items():
        before = into.setdefault(key, value)
        if isinstance(before, dict) and isinstance(value, dict):
            into[key] = dict(before)
            _put(into[key], value, source, f"{prefix}{key}.")
        elif before != value:
            raise ContractError(
                f"{source}: {prefix}{key} is given twice, {before!r} and {value!r}: vLLM would "
                "keep one of them; give it once"
            )


def _object(text: str, source: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ContractError(f"{source} {text!r} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ContractError(f"{source} {text!r} must be a JSON object")
    return value


def _nested(path: str, text: str) -> dict[str, Any]:
    """`a.b` and a value as vLLM reads them: JSON if it is any; `a.b+` takes a list with commas."""
    value: Any = text
    if path.endswith("+"):
        path, value = path[:-1], text.split(",")
    else:
        try:
            value = json.loads(text)
        except ValueError:
            value = text
    for key in reversed(path.split(".")):
        value = {key: value}
    return dict(value)


def _own(name: str, source: str) -> str:
    """The name of a scheduler, if it is one of this repository (the step log's, a test's)."""
    if not (REPO / name.split(".", maxsplit=1)[0]).is_dir():
        raise ContractError(
            f"{source} {name}: `hmas serve` runs vLLM with its own scheduler ({HOOK}), and vLLM "
            "takes one; leave it out, or start `vllm serve` without H-MAS"
        )
    return name


def _read_file(given: Given, path: Path) -> None:
    """What vLLM's YAML file says; vLLM reads it itself and puts it before other arguments."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ContractError(f"{CONFIG} {path}: cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ContractError(f"{CONFIG} {path}: must be a mapping of vLLM's options to values")
    for key, value in content.items():
        flag = "--" + str(key).replace("_", "-")
        if flag.startswith(f"{ADDITIONAL}."):
            raise ContractError(f"{path}: write {key} as a mapping under additional-config")
        if flag == ADDITIONAL:
            found = value if isinstance(value, dict) else _object(str(value), f"{path}: {key}")
            _add(given, found, f"{path}: {key}")
        elif flag == SCHEDULER:
            given.scheduler = _own(str(value), f"{path}: {key}")
        elif flag == "--model":
            given.model = str(value)
