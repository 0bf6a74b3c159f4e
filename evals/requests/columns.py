"""How are millions of requests held? As columns: an object each would fill the memory.

Drawn by what sends, planned for by `evals.plan`. A case has `LazyRequests`, so that it stays
small until a worker runs it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np
from numpy.typing import NDArray

from serving.contracts import TraceRequest
from serving.contracts.requests import PREFIX_BLOCK_TOKENS


@dataclass(frozen=True, slots=True)
class RequestColumns:
    """Requests in order of arrival."""

    arrival_s: NDArray[np.float64]  # seconds, shape (requests,)
    # prompt_tokens, output_tokens: lengths, shape (requests,).
    prompt_tokens: NDArray[np.int32]
    output_tokens: NDArray[np.int32]
    sender: NDArray[np.int32]  # who sent each, a number of `senders`, shape (requests,)
    # A request of each, for what all of its requests have in common: tenant, SLO class, targets,
    # priority.
    senders: tuple[TraceRequest, ...]
    # Shared prompt blocks of each; empty where nothing is shared.
    prefixes: tuple[tuple[int, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.arrival_s)

    @classmethod
    def of(cls, requests: Sequence[TraceRequest]) -> "RequestColumns":
        """The columns of requests; what they allow and what caches hold is not in them."""
        numbers: dict[TraceRequest, int] = {}
        sender = np.array(
            [
                numbers.setdefault(
                    TraceRequest(0.0, 1, 1, one.tenant, one.slo_class, one.priority, slo=one.slo),
                    len(numbers),
                )
                for one in requests
            ],
            np.int32,
        )
        shared = any(one.prefix for one in requests)
        return cls(
            np.array([one.arrival_s for one in requests], np.float64),
            np.array([one.prompt_tokens for one in requests], np.int32),
            np.array([one.output_tokens for one in requests], np.int32),
            sender, tuple(numbers), tuple(one.prefix for one in requests) if shared else (),
        )  # fmt: skip

    @classmethod
    def merged(cls, parts: Sequence["RequestColumns"]) -> "RequestColumns":
        """All requests of all parts in order of arrival; ties in the order of the parts."""
        first = np.cumsum([0, *(len(part.senders) for part in parts)])
        arrival_s, prompt, output, sender = (
            np.concatenate(columns)
            for columns in zip(
                *(
                    (p.arrival_s, p.prompt_tokens, p.output_tokens, p.sender + first[i])
                    for i, p in enumerate(parts)
                ),
                strict=True,
            )
        )
        prefixes: tuple[tuple[int, ...], ...] = ()
        if any(part.prefixes for part in parts):
            prefixes = tuple(
                prefix for part in parts for prefix in part.prefixes or ((),) * len(part)
            )
        senders = tuple(one for part in parts for one in part.senders)
        whole = cls(arrival_s, prompt, output, sender.astype(np.int32), senders, prefixes)
        return whole.at(np.argsort(arrival_s, kind="stable"))

    def at(self, rows: NDArray[np.int64]) -> "RequestColumns":
        """Those at these places, in this order."""
        return replace(
            self,
            arrival_s=self.arrival_s[rows],
            prompt_tokens=self.prompt_tokens[rows],
            output_tokens=self.output_tokens[rows],
            sender=self.sender[rows],
            prefixes=tuple(self.prefixes[row] for row in rows) if self.prefixes else (),
        )

    def between(self, from_s: float, until_s: float) -> "RequestColumns":
        """Those that arrive from one moment on and before another, at their own times."""
        first, last = np.searchsorted(self.arrival_s, (from_s, until_s))
        return self.at(np.arange(first, last))

    def request(self, row: int) -> TraceRequest:
        """The one at a place."""
        return self.at(np.array([row])).requests()[0]

    def requests(self) -> tuple[TraceRequest, ...]:
        """An object for each."""
        rows = zip(
            self.arrival_s.tolist(), self.prompt_tokens.tolist(), self.output_tokens.tolist(),
            (self.senders[number] for number in self.sender.tolist()),
            self.prefixes or ((),) * len(self), strict=True,
        )  # fmt: skip
        return tuple(
            TraceRequest(
                arrival_s, prompt, output, one.tenant, one.slo_class, one.priority, prefix,
                slo=one.slo,
            )
            for arrival_s, prompt, output, one, prefix in rows
        )  # fmt: skip

    def scaled(self, factor: float) -> "RequestColumns":
        """With lengths times a factor; none falls below one token."""
        if factor == 1.0:
            return self
        prompt, output = (
            np.maximum(np.rint(tokens * factor), 1).astype(np.int32)
            for tokens in (self.prompt_tokens, self.output_tokens)
        )
        return self._with_lengths(prompt, output)

    def clipped(self, max_model_len: int) -> tuple["RequestColumns", int]:
        """Shortened to the model's context, and how many were.

        Where a request does not fit, its answer is cut to half the context at most, then the
        prompt to what is left.
        """
        too_long = self.prompt_tokens > max_model_len - self.output_tokens
        shorter = np.minimum(self.output_tokens, max_model_len // 2)
        output = np.where(too_long, shorter, self.output_tokens).astype(np.int32)
        prompt = np.minimum(self.prompt_tokens, max_model_len - output).astype(np.int32)
        return self._with_lengths(prompt, output), int(too_long.sum())

    def _with_lengths(
        self, prompt: NDArray[np.int32], output: NDArray[np.int32]
    ) -> "RequestColumns":
        """With other lengths; shared blocks are kept as far as the prompt holds them."""
        prefixes = tuple(
            blocks[: -(-tokens // PREFIX_BLOCK_TOKENS)]
            for blocks, tokens in zip(self.prefixes, prompt.tolist(), strict=False)
        )
        return replace(self, prompt_tokens=prompt, output_tokens=output, prefixes=prefixes)


class LazyRequests(Sequence[TraceRequest]):
    """Requests whose objects are made when somebody goes through them, and never pickled."""

    __slots__ = ("_made", "columns")

    def __init__(self, columns: RequestColumns) -> None:
        self.columns = columns
        self._made: tuple[TraceRequest, ...] | None = None

    def __reduce__(self) -> tuple[type["LazyRequests"], tuple[RequestColumns]]:
        return LazyRequests, (self.columns,)

    def __len__(self) -> int:
        return len(self.columns)

    @overload
    def __getitem__(self, place: int) -> TraceRequest: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[TraceRequest]: ...
    def __getitem__(self, place: int | slice) -> TraceRequest | Sequence[TraceRequest]:
        if isinstance(place, int) and self._made is None:  # the first and the last are often asked
            return self.columns.request(place)
        return self._all()[place]

    def __iter__(self) -> Iterator[TraceRequest]:
        return iter(self._all())

    def _all(self) -> tuple[TraceRequest, ...]:
        if self._made is None:
            self._made = self.columns.requests()
        return self._made
