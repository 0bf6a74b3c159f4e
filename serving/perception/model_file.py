"""How does what was learned of costs and lengths outlive a restart of the engine?

One JSON file per engine core. The scheduler loads it at start-up, has it saved about once
a minute, and closes it at shutdown. Nothing here raises, and while the engine runs
nothing is written in its thread. The file holds tenant names; only its owner can read it.
"""

import json
import logging
import os
import queue
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from serving.perception.cost_model import CostModel
from serving.perception.length_model import LengthModel

VERSION = 1  # of the file's form; one of another version is not read
THREAD_NAME = "hmas-model-file"
_LARGEST_BYTES = 32 * 1024 * 1024  # about 20 times what full models take
_CLOSE_S = 10.0

logger = logging.getLogger("vllm.hmas")

State = dict[str, Any]


def fingerprint(vllm_config: Any) -> dict[str, str]:
    """What must be the same for step times and lengths to be worth keeping.

    What a version of vLLM does not have counts as None.
    """
    parts = (
        ("model_config", ("model", "dtype", "quantization", "enforce_eager")),
        ("parallel_config", ("tensor_parallel_size", "pipeline_parallel_size")),
        ("cache_config", ("block_size",)),
        ("scheduler_config", ("max_num_batched_tokens",)),
    )
    said = {
        name: str(getattr(getattr(vllm_config, part, None), name, None))
        for part, names in parts
        for name in names
    }
    speculative = getattr(getattr(vllm_config, "speculative_config", None), "method", None)
    return {**said, "speculative": str(speculative), "device": _device_name()}


def rank_path(path: str | Path, rank: int) -> Path:
    """The file of one data-parallel rank: as given for rank 0, then `perception.rank1.json`."""
    path = Path(path)
    return path.with_suffix(f".rank{rank}{path.suffix}") if rank else path


class ModelFile:
    """The file that keeps a cost model and a length model.

    Args:
        path: where it is; folders are made as needed.
        fingerprint: of this engine; a file with another one is not used.
    """

    def __init__(self, path: str | Path, fingerprint: Mapping[str, str]) -> None:
        self.path = Path(path)
        self._fingerprint = dict(fingerprint)
        self._jobs: queue.SimpleQueue[State | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._failed = False

    def load(self, cost: CostModel, lengths: LengthModel) -> str:
        """Restore both models, or leave both as they are; the answer says which, and why."""
        try:
            state = self._read()
            # First into models of no account: both parts fit, or neither is used.
            CostModel().restore(state["cost"])
            LengthModel().restore(state["lengths"])
            cost.restore(state["cost"])
            lengths.restore(state["lengths"])
        except FileNotFoundError:
            return f"no learned models in {self.path} yet: starting with the defaults"
        except Exception as error:  # noqa: BLE001  no file may keep the engine from starting
            reason = str(error) if isinstance(error, ValueError) else repr(error)
            return f"learned models in {self.path} ignored: {reason[:300]}"
        return f"learned models restored from {self.path}: {len(state['lengths']['groups'])} groups"

    def save_soon(self, cost: CostModel, lengths: LengthModel) -> None:
        """Copy both models now, and have the copy written by the file's own thread."""
        try:
            if self._jobs.empty():  # else the disk is slower than we are
                self._jobs.put({"cost": cost.state(), "lengths": lengths.state()})
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name=THREAD_NAME, daemon=True)
                self._thread.start()
        except Exception as error:  # noqa: BLE001  called between two steps
            self._warn(error)

    def close(self, cost: CostModel, lengths: LengthModel) -> None:
        """End the thread and write a last time, in the calling thread."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join(_CLOSE_S)
            if self._thread.is_alive():
                self._warn(TimeoutError(f"the last save has not ended within {_CLOSE_S:g} s"))
                return
            self._thread = None
        try:
            self._write({"cost": cost.state(), "lengths": lengths.state()})
        except Exception as error:  # noqa: BLE001  called at shutdown
            self._warn(error)

    def _work(self) -> None:
        while (state := self._jobs.get()) is not None:
            self._write(state)

    def _write(self, state: State) -> None:
        # Two servers may have been given the same file: each writes its own copy first.
        draft = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(draft, "w", opener=_owner_only) as out:
                for part in _parts({"fingerprint": self._fingerprint, **state}):
                    out.write(part)
                    time.sleep(0)  # lets the engine's thread run: encoding holds Python's lock
            draft.replace(self.path)
        except Exception as error:  # noqa: BLE001  the thread must live to try again
            self._warn(error)
            with suppress(OSError):
                draft.unlink(missing_ok=True)

    def _read(self) -> State:
        size = self.path.stat().st_size
        if size > _LARGEST_BYTES:
            raise ValueError(f"it has {size} bytes, more than {_LARGEST_BYTES}")
        try:
            state = json.loads(self.path.read_text())
        except (ValueError, RecursionError) as error:
            raise ValueError(f"not JSON, or only a part of it ({error})") from error
        if not isinstance(state, dict) or state.get("version") != VERSION:
            found = state.get("version") if isinstance(state, dict) else None
            raise ValueError(f"its version is {str(found)[:20]}, and only {VERSION} is read")
        theirs, ours = state.get("fingerprint"), self._fingerprint
        if theirs != ours:
            theirs = theirs if isinstance(theirs, dict) else {}
            other = [key for key in {**ours, **theirs} if theirs.get(key) != ours.get(key)]
            said = ", ".join(f"{k} {theirs.get(k)!r}, here {ours.get(k)!r}" for k in other)
            raise ValueError(f"it was learned by another engine: {said}")
        lacks = [part for part in ("cost", "lengths") if not isinstance(state.get(part), dict)]
        if lacks:
            raise ValueError(f"{lacks[0]} is missing")
        return state

    def _warn(self, error: Exception) -> None:
        if not self._failed:
            logger.warning(
                "cannot save learned models in %s (said once): %s; they end with this process",
                self.path, error,
            )  # fmt: skip
        self._failed = True


def _owner_only(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _parts(state: State) -> Iterator[str]:
    """The file's text, a short piece at a time."""
    lengths = dict(state["lengths"])
    counts = lengths.pop("counts")
    yield f'{{"version": {VERSION},\n"fingerprint": {json.dumps(state["fingerprint"])},\n'
    yield f'"cost": {json.dumps(state["cost"], default=_listed)},\n'
    yield f'"lengths": {json.dumps(lengths, default=_listed)[:-1]}, "counts": ['
    for i, row in enumerate(counts):
        yield (",\n" if i else "\n") + json.dumps(row.tolist())
    yield "]}}\n"


def _listed(array: Any) -> Any:
    return array.tolist()


def _device_name() -> str:
    try:
        from vllm.platforms import current_platform

        return f"{current_platform.device_type} {current_platform.get_device_name()}"
    except Exception:  # noqa: BLE001  not every platform can tell
        return "unknown"
