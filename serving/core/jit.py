"""How is the core compiled, and where is that kept? Decorates every compiled function.

Compiled with numba, which vLLM brings, and kept on disk, so that a server compiles once. numba's
own cache looks at a function's own file only, and goes on with old code when a function in another
file, which it calls, has changed. Here a change in any file of the core or the policies counts.
"""

import hashlib
import logging
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

from numba import njit
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator

F = TypeVar("F", bound=Callable[..., Any])
logger = logging.getLogger("vllm.hmas")
_SERVING = Path(__file__).resolve().parents[1]


def compiled(function: F) -> F:
    """Compile `function` for each combination of argument types that it is called with.

    Divisions by zero give infinity or NaN, as in numpy. Where no folder can be written, each
    process compiles anew, and the log says so once.
    """
    return _compiled(function)


def compiled_in_place(function: F) -> F:
    """As `compiled`, for a function that makes no array and returns none: it must not own any.

    numba then counts no references, which is an atomic operation for each array at each call, and
    puts the code where it is called: to hand over a tuple of many arrays costs more than most
    functions do. A loop of small functions over many arrays is six times faster by the first and
    fifteen by the second (`hmas bench engine`). A function that makes an array does not compile.
    """
    return _compiled(function, _nrt=False, forceinline=True)


def _compiled(function: F, **options: bool) -> F:
    dispatcher = njit(error_model="numpy", **options)(function)
    if _folder() is not None:
        dispatcher._cache = _Kept(function)
    return cast("F", dispatcher)


def cache_folder() -> Path:
    """Where compiled code is kept: HMAS_CACHE, or `hmas/compiled` in the user's cache folder."""
    if given := os.environ.get("HMAS_CACHE"):
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "hmas" / "compiled"


@cache
def _folder() -> Path | None:
    # Of one checkout or installation: another one has other code under the same names.
    folder = cache_folder() / hashlib.sha256(str(_SERVING).encode()).hexdigest()[:12]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"{folder} cannot be written")
    except OSError as error:
        logger.warning(
            "compiled code is not kept, and the next start compiles again (%s): set HMAS_CACHE "
            "to a folder that can be written", error,
        )  # fmt: skip
        return None
    return folder


@cache
def _stamp(folder: Path) -> str:
    """Changes with the text of any file that the compiled functions of `folder` may be made of."""
    digest = hashlib.sha256()
    for place in sorted({_SERVING / "core", _SERVING / "policies", folder}):
        for file in sorted(place.glob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()


@cache
def _kept_in(folder: Path) -> Path:
    """Where the code of the functions in `folder` is kept, of this text of its sources only.

    numba writes its index before the file that it names. Two processes that start after an upgrade
    would let one find the new index and, under the name in it, the code of the version before.
    """
    kept = _folder()
    assert kept is not None  # else nothing is kept
    place = kept / f"{folder.name}-{_stamp(folder)[:16]}"
    if not place.exists():
        for old in kept.glob(f"{folder.name}-*"):
            shutil.rmtree(old, ignore_errors=True)
    return place


class _Locator(_CacheLocator):
    def __init__(self, source: Path, line: int) -> None:
        self._source, self._line = source, line

    def get_cache_path(self) -> str:
        return str(_kept_in(self._source.parent))

    def get_source_stamp(self) -> str:
        return _stamp(self._source.parent)

    def get_disambiguator(self) -> str:
        return f"{self._source.parent.name}-{self._line}"

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> "_Locator":
        return cls(Path(py_file).resolve(), py_func.__code__.co_firstlineno)


class _Implementation(CompileResultCacheImpl):
    _locator_classes = [_Locator]


class _Kept(FunctionCache):
    _impl_class = _Implementation

    def load_overload(self, *args: Any) -> Any:
        try:
            return super().load_overload(*args)
        except Exception as error:  # noqa: BLE001  a broken file costs a compilation, no more
            logger.warning("compiled code in %s cannot be read: %s", self.cache_path, error)
            with suppress(OSError):
                self.flush()
            return None

    def save_overload(self, *args: Any) -> None:
        try:
            super().save_overload(*args)
        except OSError as error:
            logger.warning("compiled code is not kept in %s: %s", self.cache_path, error)
