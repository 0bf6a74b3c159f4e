"""Who may send what to this API server, and what has the engine to be told of who may not?

One gate per API server. It follows the engine by the totals that the plugin polls, and the contract
in force; the middleware asks it. What is not heard of any more lapses, as the controller's lease
does.
"""

import hashlib
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from serving.contracts import WHOLE, Arrival, Parts, TenantPart, encode
from serving.contracts.settings import EngineSettings
from serving.hook.shedding import Shedding

# Without totals for this long the engine is taken to want nothing refused.
LAPSE_S = 5.0
PAGE = 500  # refusals told at once: noting them takes the engine's own time
_MINUTE_S = 60.0


@dataclass(frozen=True, slots=True)
class Size:
    """What one HTTP request asks of the engine; `max_tokens` of each answer, 0 if not known."""

    requests: int
    prompt_tokens: int
    max_tokens: int

    @property
    def tokens(self) -> int:
        """At most, prompts and answers."""
        return self.prompt_tokens + self.requests * self.max_tokens


@dataclass(frozen=True, slots=True)
class OverQuota:
    """Why a request is over its tenant's quota, and when it may come again."""

    reason: str
    retry_after_s: int


@dataclass(slots=True)
class _Use:
    """What a tenant uses: here (`requests`, `tokens` of what was let in) and in the engine.

    `left` is the rest of a minute's tokens at `at_s`, of which `counted` were used by then.
    """

    requests: int = 0
    tokens: int = 0
    waiting: int = 0
    inside: int = 0
    left: float | None = None
    at_s: float = 0.0
    counted: int | None = None


class AdmissionGate:
    """Refuses what contract and decision say, and keeps the refusals until they are told.

    Args:
        clock: seconds that only grow.

    Attributes:
        settings: with the contract in force; None until they are known.
        epoch: of that contract.
        asks: whether the contract asks anything of requests: keys, classes or quotas.
        share: of sheddable requests that is refused now; 0 once nobody says so.
        refresh: asks the engine for its totals now.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings: EngineSettings | None = None
        self.epoch = 0
        self.refresh: Callable[[], Awaitable[None]] | None = None
        self._clock = clock
        self._share, self._until_s = 0.0, 0.0
        self._rank = 0  # who notes the refusals
        self._shedding = Shedding(())
        self._untold: deque[dict[str, Any]] = deque()
        self.asks = False
        self._is_followed = False  # whether `counted` was taken over at least once
        self._owners: dict[str, str] = {}
        self._uses: dict[str, _Use] = {}
        self._parts: Parts = {}
        self._ended: list[tuple[_Use, Size]] = []  # since the engine was last asked
        self._settling: list[tuple[_Use, Size]] = []  # before that

    def go_by(self, settings: EngineSettings, epoch: int = 0) -> None:
        """Take over settings with the contract in force."""
        self.settings, self.epoch = settings, epoch
        self._shedding = Shedding(settings.contract.sheddable)
        tenants = settings.contract.tenants
        self.asks = settings.contract.asks_of_requests
        self._owners = {key: name for name in tenants for key in tenants[name].api_key_hashes}
        for tenant, use in self._uses.items():
            _, most = self._limits(tenant)
            use.left = None if most is None or use.left is None else min(use.left, most)

    @property
    def is_open(self) -> bool:
        """Whether nothing is to be asked of any request."""
        return not self.asks and not self.share

    def owner_of(self, api_key: str) -> str | None:
        """The tenant that an API key belongs to.

        Looked up by the key's hash: how long that takes tells nothing of the keys there are.
        """
        digest = hashlib.sha256(api_key.encode("utf-8", "surrogatepass")).hexdigest()
        return self._owners.get(f"sha256:{digest}")

    # -- shedding --------------------------------------------------------------------------

    @property
    def share(self) -> float:
        """The share of sheddable requests that is refused now; 0 once nobody says so."""
        return self._share if self._clock() < self._until_s else 0.0

    def sheds(self, slo_class: str) -> bool:
        """Whether the next request of this class is refused."""
        return self._shedding.refuses(slo_class, self.share)

    # -- quotas ----------------------------------------------------------------------------

    async def over_quota(self, tenant: str, size: Size) -> OverQuota | None:
        """Why the tenant may not send this now; None if it may. In doubt the engine is asked."""
        over = self._over(tenant, size)
        if over is not None and self.refresh is not None:
            await self.refresh()
            over = self._over(tenant, size)
        return over

    def enter(self, tenant: str, size: Size) -> Callable[[], None]:
        """A request was let in; what is returned is to be called when it has been answered."""
        use = self._uses.setdefault(tenant, _Use())
        use.requests += size.requests
        use.tokens += size.tokens
        return lambda: self._ended.append((use, size))

    def _over(self, tenant: str, size: Size) -> OverQuota | None:
        assert self.settings is not None
        (most_waiting, most), use = self._limits(tenant), self._uses.get(tenant) or _Use()
        if most_waiting is not None:
            # What was let in and is not inside yet will wait there.
            waiting = use.waiting + max(0, use.requests - use.inside)
            if waiting + size.requests > most_waiting and waiting:
                return OverQuota(
                    f"{waiting} of its requests wait, and its contract allows {most_waiting}",
                    self.settings.retry_after_s,
                )
        if most is not None:
            left = self._left(use, most) - use.tokens
            # More than a minute's tokens at once may go, when nothing else does.
            if size.tokens > left and (left < most or use.tokens):
                wait_s = (min(size.tokens, most) - left) * _MINUTE_S / most
                reason = f"its contract allows {most} tokens per minute"
                return OverQuota(reason, max(1, math.ceil(wait_s)))
        return None

    def _limits(self, tenant: str) -> tuple[int | None, int | None]:
        """Requests that may wait, and tokens per minute: the part of them that is given here."""
        assert self.settings is not None
        terms = self.settings.contract.terms_of(tenant)
        part = self._parts.get(tenant, WHOLE) if self._clock() < self._until_s else WHOLE
        return part.of_limit(terms.max_waiting), part.of_limit(terms.tokens_per_minute)

    def _left(self, use: _Use, most: int) -> float:
        """Tokens that the tenant may use now: a bucket that holds and regains `most` a minute."""
        if use.left is None:
            return float(most)
        gained = (self._clock() - use.at_s) * most / _MINUTE_S
        return min(float(most), use.left + gained)

    # -- following the engine ----------------------------------------------------------------

    def take_untold(self) -> dict[str, Any]:
        """The engine is asked: a page of refusals, as its method `totals` takes them."""
        self._settling += self._ended
        self._ended = []
        page = [self._untold.popleft() for _ in range(min(PAGE, len(self._untold)))]
        return {"rank": self._rank, "refused": page} if page else {}

    def put_back(self, untold: Mapping[str, Any]) -> None:
        """A page that `take_untold` gave could not be told."""
        self._untold.extendleft(reversed(untold.get("refused", ())))

    def note(self, refused: Arrival) -> None:
        """A request was refused."""
        self._untold.append(encode(refused))

    def follow(self, totals: Sequence[Mapping[str, Any]]) -> None:
        """Take over the ranks' newest totals, as encoded: the least that any of them sheds."""
        lasts_s = min((LAPSE_S, *(float(rank["lease_left_s"]) for rank in totals)))
        self._share = min((float(rank["shed"]) for rank in totals), default=0.0)
        self._until_s = self._clock() + lasts_s
        told = totals[0]["parts"] if totals else {}  # every rank is told the same
        self._parts = {tenant: TenantPart(**part) for tenant, part in told.items()}
        self._rank = min((int(rank["rank"]) for rank in totals), default=0)
        for use, size in self._settling:
            use.requests -= size.requests
            use.tokens -= size.tokens
        self._settling = []
        self._count(totals)

    def _count(self, totals: Sequence[Mapping[str, Any]]) -> None:
        if self.settings is None or not self.asks:
            self._is_followed = False
            # Invented names must not add up: one is kept while requests of it are here.
            self._uses = {tenant: use for tenant, use in self._uses.items() if use.requests}
            return
        counted: dict[str, int] = {}
        for use in self._uses.values():
            use.waiting = use.inside = 0
        for rank in totals:
            for row in rank["counters"]:
                tokens = row["prompt_tokens"] + row["output_tokens"]
                counted[row["tenant"]] = counted.get(row["tenant"], 0) + tokens
            for row in rank["loads"]:
                use = self._uses.setdefault(row["tenant"], _Use())
                use.waiting += row["waiting"]
                use.inside += row["inside"]
        for tenant in counted:
            self._uses.setdefault(tenant, _Use())
        for tenant, use in list(self._uses.items()):
            if tenant in counted:
                self._charge(use, self._limits(tenant)[1], counted[tenant])
            elif not (use.requests or use.inside):  # not counted apart by the engine, and idle
                del self._uses[tenant]
            else:  # if the engine counts it apart again, it begins at 0
                use.counted = None
        self._is_followed = True

    def _charge(self, use: _Use, most: int | None, counted: int) -> None:
        before = use.counted if use.counted is not None else 0 if self._is_followed else counted
        use.counted = counted
        if most is not None:
            use.left = self._left(use, most) - max(0, counted - before)
            use.at_s = self._clock()
