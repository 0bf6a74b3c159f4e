"""What do sessions send? Chats and agents: turn after turn, each prompt with all before it.

An open loop: the next turn comes the think time after the one before it would end on a free
machine (FIRST_TOKEN_S, TOKEN_S), whether or not it has ended here. So every arm sees the same
arrivals, as no arm would in a closed loop; where answers take much longer than on a free machine,
turns come earlier than people would send them.

Prompts are named by blocks of 512 tokens, as in Mooncake's traces. What an engine can find in its
cache of an earlier turn is what that prompt held in whole blocks; the answer before it is
computed again, a little more work than a real server has.
"""

from dataclasses import dataclass

import numpy as np

from evals.requests.columns import RequestColumns
from evals.requests.sending import Block, Clock, Stretch, arrivals_s, tenant_key
from evals.suite.shapes import Lognormal
from serving.contracts import TraceRequest
from serving.contracts.requests import PREFIX_BLOCK_TOKENS

FIRST_TOKEN_S = 0.5  # nominal: what an 8B model on an idle GPU takes at most
TOKEN_S = 0.02


@dataclass(frozen=True, slots=True)
class Sessions:
    """A tenant with sessions; the fields are those of `SessionsSpec`."""

    who: TraceRequest
    rate_rps: float
    turns: float
    think_s: Lognormal
    system_tokens: int
    prompts: Lognormal
    outputs: Lognormal
    most_tokens: int

    def send(self, factor: float, block: Block) -> RequestColumns:
        """As `Sender.send`; sessions that began before the block are in the middle of theirs."""
        key = tenant_key(self.who.tenant)
        # As many begin in a block's length before it: who began earlier is through with it.
        begin = Stretch(
            -block.length_s, block.length_s, 2 * block.length_s * self.rate_rps, "Gamma", 1.0,
            self.prompts, self.outputs,
        )  # fmt: skip
        clock = Clock.of(block, self.who.tenant)
        starts_s = arrivals_s(begin, factor, clock, np.random.default_rng([block.seed, key]))
        parts = [self._session(at_s, i, key, block) for i, at_s in enumerate(starts_s.tolist())]
        none = np.zeros(0, np.int32)
        empty = RequestColumns(np.zeros(0), none, none, none, ())
        whole = RequestColumns.merged([empty, *parts])
        turns = len(whole)
        return RequestColumns(
            whole.arrival_s, whole.prompt_tokens, whole.output_tokens,
            np.zeros(turns, np.int32), (self.who,), whole.prefixes,
        )  # fmt: skip

    def _session(self, start_s: float, number: int, key: int, block: Block) -> RequestColumns:
        rng = np.random.default_rng([block.seed, key, number])
        turns = int(rng.geometric(1 / self.turns))
        new, answers = self.prompts.draw(turns, rng), self.outputs.draw(turns, rng)
        pauses_s = self.think_s.draw_real(turns, rng)
        before = self.system_tokens + np.concatenate([[0], np.cumsum(new + answers)[:-1]])
        prompts = (before + new).astype(np.int32)
        waits_s = FIRST_TOKEN_S + TOKEN_S * answers + pauses_s
        arrival_s = start_s + np.concatenate([[0.0], np.cumsum(waits_s)[:-1]])
        fits = prompts + answers <= self.most_tokens
        rows = np.flatnonzero(fits & (arrival_s >= 0) & (arrival_s < block.length_s))
        system = self.system_tokens // PREFIX_BLOCK_TOKENS
        # Blocks of the tenant, then of the session: no two names are the same by accident.
        tenants = range(key << 30, (key << 30) + system)
        own = (key << 30) + ((number + 1) << 10)
        prefixes = tuple(
            (*tenants[: tokens // PREFIX_BLOCK_TOKENS],
             *range(own + system, own + tokens // PREFIX_BLOCK_TOKENS))
            for tokens in prompts[rows].tolist()
        )  # fmt: skip
        return RequestColumns(
            arrival_s[rows], prompts[rows], answers[rows], np.zeros(len(rows), np.int32),
            (), prefixes,
        )  # fmt: skip
