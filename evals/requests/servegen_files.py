"""What does ServeGen say of a model's clients? Two files for each, as published.

`chunk-N-trace.csv` has a line for each ten minutes: start (s), rate (requests/s), coefficient of
variation of the gaps, their family (Gamma or Weibull, empty without requests), its shape and scale.
`chunk-N-dataset.json` has, from each of its starts (s) on, the shares of `input_tokens` and
`output_tokens` as the text of a dictionary, and `reason_ratio` where the model reasons.
Source: alibaba/ServeGen, `data/` (arXiv 2505.09999, Apache-2.0). Read by `servegen`.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import httpx
import numpy as np
from numpy.typing import NDArray

from evals.requests.azure_files import OnProgress, download, find_trace
from evals.requests.trace import BadLineError, TraceError, numbered_lines, shown

SOURCE = "https://raw.githubusercontent.com/alibaba/ServeGen/main/data/reason"
FETCHED = {"deepseek-r1": 73}  # models that `hmas traces fetch` brings, and their clients
WINDOW_S = 600
FAMILIES = ("Gamma", "Weibull")
_TRACE = re.compile(r"chunk-(\d+)-trace\.csv")


class Window(NamedTuple):
    """Ten minutes of a client with requests in them."""

    start_s: float  # since the first day's midnight
    requests: int  # so many
    # family, shape: of the gaps between them; their mean follows from `requests`.
    family: Literal["Gamma", "Weibull"]
    shape: float


class LengthShares(NamedTuple):
    """A distribution of lengths in tokens, and its cumulated shares, both (lengths,)."""

    tokens: NDArray[np.int32]
    cumulated: NDArray[np.float64]

    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.int32]:
        """So many lengths; (count,)."""
        places = np.searchsorted(self.cumulated, rng.random(count), "right")
        lengths: NDArray[np.int32] = self.tokens[np.minimum(places, len(self.tokens) - 1)]
        return lengths


@dataclass(frozen=True, slots=True)
class Client:
    """One client."""

    number: int  # as in the names of its files
    windows: tuple[Window, ...]  # in order of time
    starts_s: tuple[float, ...]  # from when on which lengths hold, in order of time
    # prompts, outputs: for each of these; None where none were seen.
    prompts: tuple[LengthShares | None, ...]
    outputs: tuple[LengthShares | None, ...]
    reasons: bool  # whether its answers begin with reasoning


def find_servegen(model: str) -> Path | None:
    """The folder of a model's clients; None: not on this machine.

    Raises:
        TraceError: `HMAS_TRACES` is set but is not a folder.
    """
    found = find_trace(f"{model}/chunk-*-trace.csv")
    return found and found.parent


def fetch_servegen(
    model: str, folder: Path, on_progress: OnProgress, client: httpx.Client
) -> None:
    """Download the clients of a model into `folder`; files that are there already are kept.

    Raises:
        TraceError: no network, an HTTP error, or a file that is not as published.
    """
    checks = {"trace.csv": _check, "dataset.json": _document}
    names = [(number, kind) for number in range(FETCHED[model]) for kind in checks]
    for done, (number, kind) in enumerate(names, start=1):
        path = folder / model / f"chunk-{number}-{kind}"
        if not path.exists():
            url = f"{SOURCE}/{model}/{path.name}"
            download(url, path, checks[kind], lambda *_: None, client)
        on_progress(done, len(names))


def _check(path: Path) -> None:
    """Raise TraceError unless this is a client's trace file as published."""
    malformed: list[str] = []
    if not read_windows(path, malformed) and not malformed:
        malformed.append(f"{path}: no requests")
    if malformed:
        raise TraceError(malformed[0])


def client_files(folder: Path) -> dict[int, Path]:
    """The trace file of each client, by its number.

    Raises:
        TraceError: there is none; says which folders beside or below have some.
    """
    if not folder.is_dir():
        why = "is not a folder" if folder.exists() else "No such file or directory"
        raise TraceError(f"{folder}: cannot be read: {why}; ServeGen's clients are in a folder")
    named = {path: _TRACE.fullmatch(path.name) for path in folder.iterdir()}
    files = {int(match[1]): path for path, match in named.items() if match}
    if not files:
        models = sorted({path.parent.name for path in folder.glob("*/chunk-*-trace.csv")})
        hint = f"; take one of its folders: {', '.join(models)}" if models else ""
        raise TraceError(f"{folder}: has no client (chunk-N-trace.csv){hint}")
    return dict(sorted(files.items()))


def digest(folder: Path) -> str:
    """SHA-256 over the files of all clients, by name."""
    hashed = hashlib.sha256()
    for path in sorted(folder.glob("chunk-*")):
        hashed.update(path.name.encode() + b"\0" + path.read_bytes())
    return hashed.hexdigest()


def read_windows(path: Path, malformed: list[str]) -> tuple[Window, ...]:
    """The windows with requests of a client's trace file; broken lines are added to `malformed`.

    Raises:
        TraceError: the file cannot be read.
    """
    windows = []
    for number, line in numbered_lines(path):
        try:
            window = _window(line.strip())
        except BadLineError as error:
            malformed.append(f"{path}:{number}: {error}")
            continue
        if window is not None:
            windows.append(window)
    return tuple(sorted(windows))


def _window(line: str) -> Window | None:
    fields = [field.strip() for field in line.split(",")]
    if len(fields) != 6:
        raise BadLineError(f"line: expected 6 fields, got {len(fields)}")
    start_s = _number("start", fields[0], 0.0)
    requests = round(_number("rate", fields[1], 0.0) * WINDOW_S)
    if requests == 0:
        return None
    if fields[3] not in FAMILIES:
        raise BadLineError(f"family: expected {' or '.join(FAMILIES)}, got {shown(fields[3])}")
    family = cast(Literal["Gamma", "Weibull"], fields[3])
    return Window(start_s, requests, family, _number("shape", fields[4], 1e-9))


def _number(key: str, text: str, least: float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not least <= number < math.inf:
        raise BadLineError(f"{key}: expected a number >= {least:g}, got {shown(text)}")
    return number


def read_client(number: int, windows: tuple[Window, ...], path: Path) -> Client:
    """A client from its windows and its dataset file.

    Raises:
        TraceError: the file is broken, or has no lengths where there are requests; names the key.
    """
    document = _document(path)
    spans = sorted((_start(path, key), key) for key in document)
    tokens = [
        tuple(_shares(path, key, name, document[key]) for _, key in spans)
        for name in ("input_tokens", "output_tokens")
    ]
    starts_s = tuple(start_s for start_s, _ in spans)
    reasons = any("reason_ratio" in span for span in document.values())
    client = Client(number, windows, starts_s, tokens[0], tokens[1], reasons)
    for span in dict.fromkeys(span_at(client, windows_starts(windows)).tolist()):
        for name, known in (("input_tokens", client.prompts), ("output_tokens", client.outputs)):
            if span < 0 or known[span] is None:
                key = spans[max(span, 0)][1]
                raise TraceError(
                    f"{path}: {key}: {name}: no lengths, but the client has requests then"
                )
    return client


def _document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TraceError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise TraceError(f"{path}: not JSON: {error}") from error
    if not isinstance(document, dict) or not document:
        raise TraceError(f"{path}: expected an object with a start in seconds for each key")
    return document


def windows_starts(windows: Iterable[Window]) -> NDArray[np.float64]:
    """When each begins, in seconds."""
    return np.array([window.start_s for window in windows], np.float64)


def span_at(client: Client, moments_s: NDArray[np.float64]) -> NDArray[np.int64]:
    """Which of a client's lengths hold at each moment; -1 before the first."""
    return np.searchsorted(np.array(client.starts_s), moments_s, "right") - 1


def _start(path: Path, key: str) -> float:
    try:
        return _number("start", key, 0.0)
    except BadLineError as error:
        raise TraceError(f"{path}: {key}: {error}") from error


def _shares(path: Path, key: str, name: str, span: Any) -> LengthShares | None:
    """The distribution in `{45: 0.25, 46: 0.75}`, which is nearly JSON; None of `{}`."""
    text = span.get(name) if isinstance(span, dict) else None
    if not isinstance(text, str):
        raise TraceError(f"{path}: {key}: {name}: expected a dictionary as text, got {shown(text)}")
    flat = text.strip().removeprefix("{").removesuffix("}").replace(":", ",")
    try:
        table = np.array(json.loads(f"[{flat}]"), np.float64).reshape(-1, 2)
    except (ValueError, TypeError) as error:
        raise TraceError(
            f"{path}: {key}: {name}: expected {{tokens: share, ...}}, got {shown(text)}"
        ) from error
    if not len(table):
        return None
    tokens, shares = table.T
    usable = np.isfinite(table).all() and (shares >= 0).all() and shares.sum() > 0
    if not usable or not ((tokens >= 0) & (tokens <= 1e9)).all():
        raise TraceError(
            f"{path}: {key}: {name}: expected tokens and shares >= 0, got {shown(text)}"
        )
    cumulated = np.cumsum(shares)
    # A request has at least one token, also where the data say 0.
    return LengthShares(np.maximum(tokens, 1).astype(np.int32), cumulated / cumulated[-1])
