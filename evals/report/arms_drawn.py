"""Which arms are drawn strongly, and whose requests are kept for the plots of single cases?

All of them as long as there are colours that can be told apart; of more, the notable ones.
The others are in the tables, and thin and grey in goodput over load. Called by the figures,
by `run_files`, and before a run to decide whose outcomes it keeps.
"""

from collections.abc import Iterable

MOST_ARMS_DRAWN = 10  # as many as there are colours in `figures`

NOTABLE = (
    "vllm-fcfs", "vllm-tuned", "sglang", "sglang-emulated", "sglang-emulated-tuned", "rules-only",
    "hmas", "hindsight-fixed", "hindsight-switching",
)  # fmt: skip
# Where the best fixed arm cannot be known yet and `hindsight-fixed` does not run: the first of
# these stands for it.
STRONG_FIXED = ("fixed-slide+rules", "fixed-slide+slack", "fixed-slide")


def drawn_arms(arms: Iterable[str]) -> tuple[str, ...]:
    """The arms of a run that are drawn whatever their results are, in the order given."""
    names = tuple(dict.fromkeys(arms))
    if len(names) <= MOST_ARMS_DRAWN:
        return names
    wanted = set(NOTABLE)
    if "hindsight-fixed" not in names:
        wanted |= set([arm for arm in STRONG_FIXED if arm in names][:1])
    return tuple(name for name in names if name in wanted)
