"""How is the compiled engine run from changed sources, without the compiler?

Its modules are executed anew from their text, and find each other instead of the compiled ones.
Arrays of records become `recarray`s, so that plain Python reads their fields as compiled code does.
"""

import builtins
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import CodeType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[3]
_ENGINES = ("gaps", "kv_blocks", "step_state", "virtual_steps", "put_back", "notes",
            "hooked_steps", "virtual_books", "virtual_hook", "compiled")  # fmt: skip
_BESIDE = ("hook.order", "hook.engine_state", "perception.lanes", "perception.rows")
OWN = frozenset({
    *(f"serving.core.{path.stem}" for path in (ROOT / "serving" / "core").glob("[!_]*.py")),
    *(f"serving.engines.{name}" for name in _ENGINES), *(f"serving.{name}" for name in _BESIDE),
})  # fmt: skip
_MAKERS = {"serving.engines.step_state": "new_state", "serving.core.state": "new_core"}  # of arrays
Change = tuple[str, str, str]  # a module's name, what stands in it, and what shall stand there


def planted(change: Change | None = None) -> type:
    """`CompiledEngine` of a copy in which one thing is changed."""
    return _Copy(change).module("serving.engines.compiled").CompiledEngine  # type: ignore[no-any-return]


class _Copy:
    def __init__(self, change: Change | None) -> None:
        self._change = change
        self._modules: dict[str, Any] = {
            "serving.core.jit": SimpleNamespace(compiled=_as_it_is, compiled_in_place=_as_it_is),
        }

    def module(self, name: str) -> Any:
        if name not in self._modules:
            self._modules[name] = found = ModuleType(f"planted.{name}")
            found.__dict__["__builtins__"] = {**vars(builtins), "__import__": self._import}
            exec(self._code(name), found.__dict__)
            if maker := _MAKERS.get(name):
                made = getattr(found, maker)
                setattr(found, maker, lambda *args: _readable(made(*args)))
        return self._modules[name]

    def _code(self, name: str) -> CodeType:
        if self._change is None or self._change[0] != name:
            return _code(name)
        _, old, new = self._change
        text = _text(name)
        assert text.count(old) == 1, "the source has changed: plant anew"
        return compile(text.replace(old, new), f"planted {name}", "exec")

    def _import(
        self, name: str, within: Mapping[str, Any] | None = None,
        within_function: Mapping[str, Any] | None = None, wanted: tuple[str, ...] = (),
        level: int = 0,
    ) -> Any:  # fmt: skip
        if name == "numpy" and not wanted:
            return _RecordNumpy
        if name in OWN:
            return self.module(name)
        ours = [part for part in wanted or () if f"{name}.{part}" in OWN]
        found = __import__(name, within, within_function, wanted, level)
        if ours:
            parts = {part: self.module(f"{name}.{part}") for part in ours}
            return SimpleNamespace(**{**{p: getattr(found, p, None) for p in wanted}, **parts})
        return found


class _Zeros:
    """numpy, but that arrays of records are readable by plain Python."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    @staticmethod
    def zeros(shape: Any, dtype: Any = float) -> Any:
        return _record(np.zeros(shape, dtype))


_RecordNumpy = _Zeros()


@cache
def _text(name: str) -> str:
    return (ROOT / f"{name.replace('.', '/')}.py").read_text()


@cache
def _code(name: str) -> CodeType:
    return compile(_text(name), name, "exec")


def _as_it_is(function: Any) -> Any:
    return function


def _record(array: Any) -> Any:
    return array.view(np.recarray) if array.dtype.names else array


def _readable(state: Any) -> Any:
    """The same arrays; those inside other tuples, too."""
    if isinstance(state, np.ndarray):
        return _record(state)
    if isinstance(state, tuple) and hasattr(state, "_fields"):
        return type(state)(*(_readable(part) for part in state))
    return state
