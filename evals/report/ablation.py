"""What do the short-horizon rules add, all together and each alone, under each policy?

For results with arms such as `fixed-edf+rules` or `fixed-edf+slack`; others give no
sheets. Called by `page`, and by the command for results.md and the terminal.
"""

from collections.abc import Sequence

from evals.report.sheet import Sheet
from evals.result.metrics import Result
from evals.suite.arms import Arm, is_arm, parse_arm

SAME = 0.01  # goodput this near to the best one, as a share of it, is as good
_ONE_RUN = "One run per figure: differences of a point or so may be chance."


class Ablation:
    """The results of one scenario, looked up by load and arm.

    Attributes:
        loads: sorted.
        policies: those that ran without and with all rules, in the order of the suite, each
            with its parameters where they are set: `edf`, `edf:kappa=10`.
    """

    def __init__(self, scenario: str, results: Sequence[Result]) -> None:
        self.scenario = scenario
        chosen = [result for result in results if result["scenario"] == scenario]
        self.loads = sorted({float(result["load"]) for result in chosen})
        names = dict.fromkeys(str(result["arm"]) for result in chosen)
        arms = [parse_arm(name) for name in names if is_arm(name)]
        self.arms = [arm for arm in arms if not arm.active]  # of those the tables would not say so
        self._results = {(float(r["load"]), str(r["arm"])): r for r in chosen}
        plain = {arm.policy_as_named for arm in self.arms if not arm.rules}
        ruled = [arm.policy_as_named for arm in self.arms if arm.all_rules]
        self.policies = [policy for policy in ruled if policy in plain]

    def goodput_rps(self, load: float, arm: str) -> float | None:
        """Goodput of an arm; None where it did not run."""
        result = self._results.get((load, arm))
        return None if result is None else float(result["goodput_rps"])

    def with_all_rules(self, policy: str) -> str:
        """Name of the policy's arm with all rules."""
        return next(
            arm.name for arm in self.arms if arm.policy_as_named == policy and arm.all_rules
        )

    def over_stock(self, load: float, arm: str) -> float | None:
        """Goodput of an arm over that of `vllm-fcfs`; None where either is missing or 0."""
        mine, stock = self.goodput_rps(load, arm), self.goodput_rps(load, "vllm-fcfs")
        return mine / stock if stock and mine is not None else None

    def points(self, load: float, arm: str) -> float | None:
        """What an arm's rules add: percent of the offered requests, over the policy alone."""
        bare = f"fixed-{parse_arm(arm).policy_as_named}"
        with_rules, without = self._results.get((load, arm)), self._results.get((load, bare))
        if with_rules is None or without is None:
            return None
        return 100.0 * (float(with_rules["attainment"]) - float(without["attainment"]))


def ablations(results: Sequence[Result]) -> list[Ablation]:
    """One per scenario that has an arm with rules."""
    scenarios = dict.fromkeys(str(result["scenario"]) for result in results)
    every = [Ablation(scenario, results) for scenario in scenarios]
    return [each for each in every if any(arm.rules for arm in each.arms)]


def ablation_sheets(results: Sequence[Result]) -> list[Sheet]:
    """Goodput without and with rules, the best policy per load, and what each rule adds."""
    sheets: list[Sheet] = []
    for ablation in ablations(results):
        if ablation.policies:
            sheets.append(_goodput(ablation))
        if len(ablation.policies) > 1:
            sheets.append(_best(ablation))
        sheets += _each_rule(ablation)
    return sheets


def loss_below_saturation(ablation: Ablation) -> str:
    """Does a policy with all rules lose more than 1% to stock at a load below 1?"""
    ratios = [
        (ratio, policy, load)
        for policy in ablation.policies
        for load in ablation.loads
        if load < 1
        and (ratio := ablation.over_stock(load, ablation.with_all_rules(policy))) is not None
    ]
    if not ratios:
        return ""
    ratio, policy, load = min(ratios)
    losing = len({policy for ratio, policy, _ in ratios if ratio < 1 - SAME})
    verdict = f"{losing} lose more than 1% to stock" if losing else "none loses more than 1%"
    return (
        f"Below saturation, policies with all rules: {verdict}; "
        f"the least is {ratio:.3f}x ({policy} at {load:g}x)."
    )


def _goodput(ablation: Ablation) -> Sheet:
    arms = [("stock", arm.name) for arm in ablation.arms if arm.kind == "stock"]
    for policy in ablation.policies:
        arms.append((policy, f"fixed-{policy}"))
        arms.append((f"{policy} +rules", ablation.with_all_rules(policy)))
    return Sheet(
        f"Goodput without and with all rules, {ablation.scenario}",
        ("policy", *_heads(ablation)),
        [[title, *(_with_ratio(ablation, load, arm) for load in ablation.loads)]
         for title, arm in arms],
        f"Requests per second that met all their SLOs, and over stock vLLM. "
        f"{loss_below_saturation(ablation)}",
    )  # fmt: skip


def _best(ablation: Ablation) -> Sheet:
    without = {policy: f"fixed-{policy}" for policy in ablation.policies}
    with_rules = {policy: ablation.with_all_rules(policy) for policy in ablation.policies}
    rows = [
        [title, *(_best_cell(ablation, load, arms) for load in ablation.loads)]
        for title, arms in (("without rules", without), ("with all rules", with_rules))
    ]
    note = f"(+n): so many other policies are within {SAME:.0%} of it."
    return Sheet(f"Best policy, {ablation.scenario}", ("", *_heads(ablation)), rows, note)


def _best_cell(ablation: Ablation, load: float, arms: dict[str, str]) -> str:
    goodput = {policy: ablation.goodput_rps(load, arm) or 0.0 for policy, arm in arms.items()}
    best = max(goodput, key=lambda policy: goodput[policy])
    near = sum(value >= (1 - SAME) * goodput[best] for value in goodput.values()) - 1
    ratio = ablation.over_stock(load, arms[best])
    return (
        best + (f" (+{near})" if near else "") + ("" if ratio is None else f" {ratio:.2f}x")
    )


def _each_rule(ablation: Ablation) -> list[Sheet]:
    ruled = [arm for arm in ablation.arms if arm.rules and _comparable(ablation, arm)]
    ruled.sort(key=lambda arm: (_first(ablation, arm.policy_as_named), arm.all_rules))
    rows = [
        [
            f"{arm.policy_as_named} +{'all rules' if arm.all_rules else '+'.join(arm.rules)}",
            *(_signed(ablation.points(load, arm.name)) for load in ablation.loads),
        ]
        for arm in ruled
        if not arm.all_rules or _alone(ablation, arm.policy_as_named)
    ]
    sheet = Sheet(
        f"What rules add, {ablation.scenario}",
        ("policy and rule", *_heads(ablation)),
        rows,
        "Points of goodput: percent of the offered requests that met their SLOs, minus that "
        f"of the same policy without rules. {_ONE_RUN}",
    )
    return [sheet] if rows else []


def _comparable(ablation: Ablation, arm: Arm) -> bool:
    return any(ablation.points(load, arm.name) is not None for load in ablation.loads)


def _alone(ablation: Ablation, policy: str) -> bool:
    """Whether single rules of this policy ran: then all of them together are a row as well."""
    return any(
        arm.policy_as_named == policy and arm.rules and not arm.all_rules for arm in ablation.arms
    )


def _first(ablation: Ablation, policy: str) -> int:
    return next(i for i, arm in enumerate(ablation.arms) if arm.policy_as_named == policy)


def _heads(ablation: Ablation) -> list[str]:
    return [f"{load:g}x" for load in ablation.loads]


def _with_ratio(ablation: Ablation, load: float, arm: str) -> str:
    goodput, ratio = ablation.goodput_rps(load, arm), ablation.over_stock(load, arm)
    if goodput is None:
        return "-"
    return f"{goodput:.2f}" + ("" if ratio is None else f" {ratio:.2f}x")


def _signed(points: float | None) -> str:
    if points is None:
        return "-"
    text = f"{points:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text
