"""Which requests do ServeGen's clients send? Drawn by seed from what was published of them.

Each client is a tenant. At its own rate it sends, in each ten minutes, as many requests as were
counted; the gaps between them are of the published family and shape (`evals.requests.sending`).
Lengths are drawn from the published shares, prompts and answers independently.
"""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np
from pydantic import ValidationError

from evals.requests.columns import RequestColumns
from evals.requests.sending import Block, Stream, Stretch, sent
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
from evals.requests.trace import TraceError
from evals.suite.traffic_spec import DrawSpec
from serving.contracts import TraceRequest

MOST_REQUESTS = 20_000_000  # 10 GB where a hook knows them
LONG_PROMPT, LONG_ANSWER, SHORT_ANSWER, SHORT_REASONING = 1000, 4000, 16, 500
SELDOM, SLEEPLESS = 0.1, 0.7
# What a contract that does not name them gives clients of each class, where tenants share.
WEIGHTS = {"interactive": 4.0, "conversational": 2.0, "document": 2.0, "batch": 1.0}


@dataclass(frozen=True, slots=True)
class Drawn:
    """What was drawn; `malformed` and `notes` as in a `Trace`."""

    columns: RequestColumns
    malformed: tuple[str, ...]
    notes: tuple[str, ...]


def parse_draw(text: str) -> DrawSpec:
    """A draw from `hours=9..17,clients=20`; each may be missing.

    Raises:
        ValueError: says what is expected.
    """
    parts = [part.partition("=") for part in text.split(",")]
    given = {key: value.split("..") if key == "hours" else value for key, _, value in parts}
    if len(given) == len(parts) and "model" not in given:
        with suppress(ValidationError):
            return DrawSpec.model_validate(given)
    raise ValueError(
        f"{text}: expected hours that grow from 0 on, and at least 1 of the clients, each once, "
        "as in hours=9..17,clients=20"
    )


@dataclass(frozen=True, slots=True)
class Model:
    """The clients of a model."""

    folder: Path  # with `chunk-N-trace.csv` and `chunk-N-dataset.json` for each
    # Of each client that has lengths, by number, in order of time.
    windows: dict[int, tuple[Window, ...]]
    hours: tuple[float, float]  # of all of them, from the first to the end of the last
    # malformed, notes: as in a `Trace`.
    malformed: tuple[str, ...]
    notes: tuple[str, ...]
    _sent: frozenset[int] = frozenset()  # the ten minutes in which any client sends
    _clients: dict[int, tuple[Client, str]] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> "Model":
        """Read the rates of all clients.

        Raises:
            TraceError: there is none, or no file can be read.
        """
        malformed, notes = list[str](), list[str]()
        files = client_files(folder)
        windows = {number: read_windows(path, malformed) for number, path in files.items()}
        windows = {number: each for number, each in windows.items() if each}
        total = sum(window.requests for each in windows.values() for window in each)
        for number in list(windows):
            lengths = folder / f"chunk-{number}-dataset.json"
            if not lengths.exists():
                share = sum(window.requests for window in windows.pop(number)) / total
                notes.append(
                    f"{lengths}: missing; client {number} is left out, "
                    f"{share:.1%} of the requests that were published"
                )
        if not windows:
            first = f"; first problem: {(malformed or notes)[0]}" if malformed or notes else ""
            raise TraceError(f"{folder}: no usable request{first}")
        starts_s = [window.start_s for each in windows.values() for window in each]
        hours = (min(starts_s) / 3600, (max(starts_s) + WINDOW_S) / 3600)
        sent_in = frozenset(int(start_s // WINDOW_S) for start_s in starts_s)
        return cls(folder, windows, hours, tuple(malformed), tuple(notes), sent_in)

    def is_sent(self, from_s: float, until_s: float) -> bool:
        """Whether any client sends then: the second week of m-small has hours without."""
        return not self._sent.isdisjoint(
            range(int(from_s // WINDOW_S), math.ceil(until_s / WINDOW_S))
        )

    def senders(
        self, from_s: float, until_s: float, clients: int | None, seed: int
    ) -> list[Stream]:
        """The clients that send between two moments, on a clock that begins with the first.

        Raises:
            TraceError: there are none, or fewer than wanted; or a file is broken.
        """
        sending = [
            number
            for number, windows in self.windows.items()
            if any(_overlap(window, from_s, until_s) for window in windows)
        ]
        where = f"{self.folder}: hours {from_s / 3600:g}..{until_s / 3600:g}"
        if not sending:
            raise TraceError(f"{where}: no usable request")
        if clients is not None:
            if clients > len(sending):
                raise TraceError(f"{where}: clients: {clients} wanted, {len(sending)} send then")
            rng = np.random.default_rng([seed, 6])
            sending = sorted(rng.choice(sending, clients, replace=False).tolist())
        return [self._sender(number, from_s, until_s) for number in sending]

    def _sender(self, number: int, from_s: float, until_s: float) -> Stream:
        if number not in self._clients:  # a second seed asks again
            dataset = self.folder / f"chunk-{number}-dataset.json"
            client = read_client(number, self.windows[number], dataset)
            self._clients[number] = client, slo_class_of(client, self.hours)
        client, slo_class = self._clients[number]
        inside = [window for window in client.windows if _overlap(window, from_s, until_s)]
        spans = span_at(client, windows_starts(inside)).tolist()
        stretches = []
        for window, span in zip(inside, spans, strict=True):
            first, last = _bounds(window, from_s, until_s)
            share = (last - first) / WINDOW_S
            # `read_client` has looked whether there are lengths.
            prompts, outputs = client.prompts[span], client.outputs[span]
            stretches.append(
                Stretch(
                    first - from_s, last - from_s, window.requests * share, window.family,
                    window.shape, cast(LengthShares, prompts), cast(LengthShares, outputs),
                    int(window.start_s),
                )
            )  # fmt: skip
        who = TraceRequest(0.0, 1, 1, f"client-{number}", slo_class)
        return Stream(who, tuple(stretches))


def draw_requests(folder: Path, draw: DrawSpec, seed: int) -> Drawn:
    """The requests of a model's clients at their own rates; the first arrives at 0 s.

    The seed decides who is drawn, and when and how long requests are.

    Raises:
        TraceError: a file is broken, or these are no requests, or too many.
    """
    model = Model.read(folder)
    from_s, until_s = (hour * 3600 for hour in draw.hours or model.hours)
    senders = model.senders(from_s, until_s, draw.clients, seed)
    count = round(sum(stretch.requests for one in senders for stretch in one.stretches))
    if count > MOST_REQUESTS:
        raise TraceError(
            f"{folder}: {count:,} requests in hours {from_s / 3600:g}..{until_s / 3600:g}, the "
            f"most is {MOST_REQUESTS:,}: draw fewer hours or clients"
        )
    columns = sent(senders, 1.0, Block(until_s - from_s, seed))
    if not len(columns):
        raise TraceError(f"{folder}: no usable request in these hours")
    at_zero = replace(columns, arrival_s=columns.arrival_s - columns.arrival_s[0])
    return Drawn(at_zero, model.malformed, model.notes)


def slo_class_of(client: Client, hours: tuple[float, float]) -> str:
    """What a client wants, by what it sends; medians are over all its published requests.

    `batch`: programs that nobody waits for. It sends in less than a tenth of the `hours` that
    were published, as a job does that is run now and then; or day and night alike: in its eight
    quietest hours of the day at least 0.7 of what it sends in the eight busiest; or the median
    answer has 4,000 tokens or more, and nobody reads along.
    `document`: the median prompt has 1,000 or more; who sends that much waits some seconds.
    `interactive`: the median answer has at most 16: a label, a choice, on which somebody's page
    or a program waits; or it begins with reasoning and has at most 500, all of which passes
    before the reader has what was asked for.
    `conversational`: all others, read as they come.
    """
    windows = (hours[1] - hours[0]) * 3600 / WINDOW_S
    answer = _median(client, client.outputs)
    seldom = len(client.windows) < SELDOM * windows
    if seldom or _night_by_day(client) >= SLEEPLESS or answer >= LONG_ANSWER:
        return "batch"
    if _median(client, client.prompts) >= LONG_PROMPT:
        return "document"
    short = SHORT_REASONING if client.reasons else SHORT_ANSWER
    return "interactive" if answer <= short else "conversational"


def _bounds(window: Window, from_s: float, until_s: float) -> tuple[float, float]:
    return max(window.start_s, from_s), min(window.start_s + WINDOW_S, until_s)


def _overlap(window: Window, from_s: float, until_s: float) -> bool:
    first, last = _bounds(window, from_s, until_s)
    return first < last


def _night_by_day(client: Client) -> float:
    """What comes in the eight quietest hours of the day, by what comes in the eight busiest."""
    hours = (windows_starts(client.windows) // 3600 % 24).astype(np.int64)
    counts = np.sort(np.bincount(hours, [one.requests for one in client.windows], minlength=24))
    return float(counts[:8].sum() / counts[-8:].sum())


def _median(client: Client, lengths: Sequence[LengthShares | None]) -> float:
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
