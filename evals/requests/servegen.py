"""Which requests do ServeGen's clients send? Drawn by seed from what was published of them.

Each client is a tenant. In each ten minutes it sends as many requests as were counted. The gaps
between them are of the published family and shape, and fill the ten minutes: of a Gamma family,
this is what such gaps are, given how many fill the time. Lengths are drawn from the published
shares, prompts and answers independently. The same client, ten minutes and seed are the same
requests, whatever else is drawn.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from evals.requests.columns import RequestColumns
from evals.requests.servegen_files import (
    WINDOW_S,
    Client,
    LengthShares,
    Window,
    client_files,
    read_client,
    read_windows,
    span_at,
    windows_starts,
)
from evals.requests.trace import Trace, TraceError
from serving.contracts import TraceRequest

MOST_REQUESTS = 20_000_000  # 10 GB where a hook knows them
LONG_PROMPT, LONG_ANSWER, SHORT_ANSWER = 4000, 4000, 200


@dataclass(frozen=True, slots=True)
class Draw:
    """Which of a model's requests.

    Attributes:
        hours: from and to, since the first day's midnight; on the second day they go on with 24.
        clients: so many of them, drawn by seed; None: all.
        keep: the chance of each request to stay.
    """

    hours: tuple[float, float] = (0.0, 24.0)
    clients: int | None = None
    keep: float = 1.0


@dataclass(frozen=True, slots=True)
class Drawn:
    """What was drawn; `malformed` and `notes` as in a `Trace`."""

    columns: RequestColumns
    malformed: tuple[str, ...]
    notes: tuple[str, ...]


def parse_draw(text: str) -> Draw:
    """A draw from `hours=9..17,clients=20,keep=0.1`; each may be missing.

    Raises:
        ValueError: says what is wrong with which.
    """
    draw, values = Draw(), dict[str, str]()
    for part in text.split(","):
        key, _, value = part.partition("=")
        if key not in ("hours", "clients", "keep") or key in values:
            raise ValueError(f"{part}: expected hours=9..17, clients=20 or keep=0.1, each once")
        values[key] = value
    try:
        first, _, last = values.get("hours", "0..24").partition("..")
        draw = Draw(
            (float(first), float(last)),
            int(values["clients"]) if "clients" in values else None,
            float(values.get("keep", "1")),
        )
    except ValueError as error:
        raise ValueError(
            f"{text}: expected numbers, as in hours=9..17,clients=20,keep=0.1"
        ) from error
    if not 0 <= draw.hours[0] < draw.hours[1]:
        raise ValueError(f"hours={values['hours']}: expected FROM..TO, growing, from 0 on")
    if draw.clients is not None and draw.clients < 1:
        raise ValueError(f"clients={draw.clients}: expected at least 1")
    if not 0 < draw.keep <= 1:
        raise ValueError(f"keep={draw.keep:g}: expected a share in (0, 1]")
    return draw


def slo_class_of(client: Client) -> str:
    """What a client wants, by what it sends; medians are over all its published requests.

    `document`: the median prompt has 4,000 tokens or more; who sends that much waits some seconds.
    `batch`: the median answer has 4,000 or more; nobody reads along for minutes.
    `interactive`: the median answer has at most 200, and does not begin with reasoning: somebody
    or something goes on when the answer is there.
    `conversational`: all others, read as they come.
    """
    if _median(client, client.prompts) >= LONG_PROMPT:
        return "document"
    answer = _median(client, client.outputs)
    if answer >= LONG_ANSWER:
        return "batch"
    return "interactive" if answer <= SHORT_ANSWER and not client.reasons else "conversational"


def draw_requests(folder: Path, draw: Draw, seed: int) -> Drawn:
    """The requests of a model's clients; the first arrives at 0 s.

    Args:
        folder: of one model, with `chunk-N-trace.csv` and `chunk-N-dataset.json` for each client.
        draw: which of them.
        seed: decides who is drawn, and when and how long requests are.

    Raises:
        TraceError: a file is broken, or these are no requests, or too many.
    """
    malformed, notes = list[str](), list[str]()
    sending = {
        number: (path, windows, inside)
        for number, path in client_files(folder).items()
        if (inside := _inside(windows := read_windows(path, malformed), draw.hours))
    }
    total = sum(window.requests for *_, inside in sending.values() for window in inside)
    for number, (path, _, inside) in list(sending.items()):
        if not _dataset(path).exists():
            share = sum(window.requests for window in inside) / total
            notes.append(
                f"{_dataset(path)}: missing; client {number} is left out, "
                f"{share:.1%} of the requests in these hours"
            )
            del sending[number]
    if draw.clients is not None:
        if draw.clients > len(sending):
            raise TraceError(
                f"{folder}: clients: {draw.clients} wanted, {len(sending)} send in these hours"
            )
        drawn = np.random.default_rng(seed).choice(list(sending), draw.clients, replace=False)
        sending = {number: sending[number] for number in sorted(drawn.tolist())}
    count = round(draw.keep * sum(w.requests for *_, inside in sending.values() for w in inside))
    first, last = draw.hours
    if count == 0:
        why = f"; first problem: {(malformed or notes)[0]}" if malformed or notes else ""
        raise TraceError(f"{folder}: no usable request in hours {first:g}..{last:g}{why}")
    if count > MOST_REQUESTS:
        raise TraceError(
            f"{folder}: {count:,} requests in hours {first:g}..{last:g}, the most is "
            f"{MOST_REQUESTS:,}: draw fewer hours or clients, or keep a smaller share"
        )
    clients = [read_client(n, all_, _dataset(path)) for n, (path, all_, _) in sending.items()]
    insides = [inside for *_, inside in sending.values()]
    columns = _columns(clients, insides, draw.keep, seed)
    if not len(columns):
        raise TraceError(f"{folder}: keep={draw.keep:g} leaves none of the requests")
    return Drawn(columns, tuple(malformed), tuple(notes))


def read(path: Path, draw: Draw | None = None, seed: int = 0) -> Trace:
    """The same as a trace; without a draw the first day of all clients.

    Raises:
        TraceError: as `draw_requests`.
    """
    drawn = draw_requests(path, draw or Draw(), seed)
    return Trace(drawn.columns.requests(), drawn.malformed, notes=drawn.notes)


def _dataset(path: Path) -> Path:
    return path.with_name(path.name.replace("-trace.csv", "-dataset.json"))


def _inside(windows: tuple[Window, ...], hours: tuple[float, float]) -> list[Window]:
    from_s, to_s = (hour * 3600 for hour in hours)
    return [window for window in windows if from_s <= window.start_s < to_s]


def _columns(
    clients: list[Client], insides: list[list[Window]], keep: float, seed: int
) -> RequestColumns:
    arrivals, prompts, outputs, senders = [], [], [], []
    for sender, (client, windows) in enumerate(zip(clients, insides, strict=True)):
        spans = span_at(client, windows_starts(windows)).tolist()
        for window, span in zip(windows, spans, strict=True):
            rng = np.random.default_rng([seed, client.number, int(window.start_s)])
            arrival_s = _arrivals(window, rng)
            if keep < 1:
                arrival_s = arrival_s[rng.random(len(arrival_s)) < keep]
            arrivals.append(arrival_s)
            prompts.append(_lengths(client.prompts[span], len(arrival_s), rng))
            outputs.append(_lengths(client.outputs[span], len(arrival_s), rng))
            senders.append(np.full(len(arrival_s), sender, np.int32))
    arrival_s = np.concatenate(arrivals)
    order = np.argsort(arrival_s, kind="stable")
    arrival_s = arrival_s[order]
    prompt, output, sent_by = (
        np.concatenate(column)[order] for column in (prompts, outputs, senders)
    )
    return RequestColumns(
        arrival_s - arrival_s[:1], prompt, output, sent_by,
        tuple(
            TraceRequest(0.0, 1, 1, f"client-{client.number}", slo_class_of(client))
            for client in clients
        ),
    )  # fmt: skip


def _arrivals(window: Window, rng: np.random.Generator) -> NDArray[np.float64]:
    """So many moments that the gaps from the window's start to its end are of its family."""
    draw = rng.standard_gamma if window.family == "Gamma" else rng.weibull
    gaps = draw(window.shape, window.requests + 1)
    total = gaps.sum()
    if not 0 < total < np.inf:  # so bursty that one gap is as good as all of the time
        gaps = np.zeros(window.requests + 1)
        gaps[rng.integers(len(gaps))] = total = 1.0
    moments_s: NDArray[np.float64] = window.start_s + np.cumsum(gaps[:-1]) * (WINDOW_S / total)
    return moments_s


def _lengths(
    shares: LengthShares | None, count: int, rng: np.random.Generator
) -> NDArray[np.int32]:
    assert shares is not None  # `read_client` has looked
    places = np.searchsorted(shares.cumulated, rng.random(count), "right")
    lengths: NDArray[np.int32] = shares.tokens[np.minimum(places, len(shares.tokens) - 1)]
    return lengths


def _median(client: Client, lengths: tuple[LengthShares | None, ...]) -> float:
    """Median length over all requests of a client."""
    spans = span_at(client, windows_starts(client.windows))
    counts = np.bincount(
        spans, weights=[window.requests for window in client.windows], minlength=len(lengths)
    )
    known = [(one, count) for one, count in zip(lengths, counts, strict=True) if one is not None]
    tokens = np.concatenate([one.tokens for one, _ in known])
    weights = np.concatenate([np.diff(one.cumulated, prepend=0.0) * n for one, n in known])
    order = np.argsort(tokens)
    cumulated = np.cumsum(weights[order])
    return float(tokens[order][np.searchsorted(cumulated, cumulated[-1] / 2)])
