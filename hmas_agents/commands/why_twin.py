"""How does the twin's answer read: would another policy have met the SLO? For `hmas why`."""

from collections.abc import Iterator

from rich.table import Table

from hmas_agents.explain.counterfactual import Agreement, Counterfactual, Replay
from hmas_agents.forms import percent, seconds
from serving.contracts import Outcome

CLOSE = 0.9  # share of verdicts on which the twin must agree with reality to go uncommented


def replay_table(twin: Counterfactual, outcome: Outcome) -> Table:
    """A row for what was measured, and one for each replay."""
    table = Table("policy", "it is", box=None, pad_edge=False)
    for name in ("waits", "first token", "per token", "ends", "others met"):
        table.add_column(name, justify="right", no_wrap=True)
    it = twin.agreement
    others = f"{it.real_met - outcome.met} of {it.requests - 1}"
    table.add_row("(as measured)", *_row(outcome), others)
    for replay in twin.replays:
        name = "as it was" if replay.as_it_was else replay.policy
        table.add_row(name, *_row(replay), f"{replay.others_met} of {replay.others}")
    return table


def answer_lines(twin: Counterfactual) -> list[str]:
    """The answer, how far to believe it, and how it was got."""
    return [_answer(twin), *_belief(twin.agreement), *_method(twin)]


def _row(it: Outcome | Replay) -> list[str]:
    times = (it.queue_s, it.ttft_s, it.tpot_s, it.e2e_s)
    return ["MET" if it.met else "missed", *(seconds(value) for value in times)]


def _answer(twin: Counterfactual) -> str:
    was, *others = twin.replays
    met = [replay for replay in others if replay.met]
    if not others:
        return "The twin tried no other policy."
    if not met:
        return f"The twin says: no, none of the {len(others)} others would have met it."
    best = max(met, key=lambda replay: replay.others_met)
    names = ", ".join(replay.policy for replay in met)
    return f"The twin says: {names} would have met it{_trade(best, was)}."


def _trade(replay: Replay, was: Replay) -> str:
    """What that would have meant for the others, in the twin's own figures."""
    more = replay.others_met - was.others_met
    if not more:
        return f"; under {replay.policy} as many of the others would have met theirs"
    word = "more" if more > 0 else "fewer"
    return f"; under {replay.policy} {abs(more)} {word} of the others would have met theirs"


def _belief(agreement: Agreement) -> Iterator[str]:
    if not agreement.same_for_it:
        yield (
            "CAUTION: replayed as it was, the twin gets this very request wrong; "
            "its other verdicts on it are worth little."
        )
    elif agreement.same_verdict < CLOSE:
        yield "CAUTION: the twin is a rough guide here, see how it agrees with what was measured."
    error = agreement.ttft_error_s
    off = "" if error is None else f", first tokens off by {seconds(error)} (median)"
    yield (
        f"How well the replay as it was agrees with what was measured: its first token "
        f"{seconds(agreement.twin_ttft_s)} against {seconds(agreement.real_ttft_s)}; "
        f"the same verdict on {percent(agreement.same_verdict)} of {agreement.requests} "
        f"requests{off}."
    )


def _method(twin: Counterfactual) -> Iterator[str]:
    was = next(replay.policy for replay in twin.replays if replay.as_it_was)
    yield (
        f"As it was means under {was}. Replayed from {twin.lead_s:.0f} s before it came, with the "
        "true answer lengths and the limits that were in force; the engine's speed is "
        f"{twin.provenance}."
    )
    for note in twin.notes:
        yield f"note: {note}"
