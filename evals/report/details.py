"""How did each tenant fare, and what did preemption cost? Sheets for any suite.

Called by `page` and by the command for results.md and the terminal.
"""

from collections.abc import Sequence

from evals.report.sheet import Sheet
from evals.result.metrics import Result


def detail_sheets(results: Sequence[Result]) -> list[Sheet]:
    """Attainment per tenant for each scenario, and preemptions where there were any."""
    sheets: list[Sheet] = []
    for scenario in dict.fromkeys(result["scenario"] for result in results):
        chosen = [result for result in results if result["scenario"] == scenario]
        sheets.append(_tenants(scenario, chosen))
        if any(result["preemptions"] for result in chosen):
            sheets.append(preemption_sheet(scenario, chosen))
    return sheets


def preemption_sheet(scenario: str, results: Sequence[Result]) -> Sheet:
    """Preemptions and recomputed tokens of each arm, and the latter over stock's."""
    stock = {r["load"]: r["recomputed_tokens"] for r in results if r["arm"] == "vllm-fcfs"}

    def over_stock(result: Result) -> str:
        tokens, ours = stock.get(result["load"]), result["recomputed_tokens"]
        return "-" if not tokens or ours is None else f"{ours / tokens:.2f}x"

    return Sheet(
        f"Preemptions, {scenario}",
        ("load", "arm", "preemptions", "recomputed tokens", "vs stock"),
        [
            [
                f"{result['load']:g}x",
                result["arm"],
                _number(result["preemptions"]),
                _number(result["recomputed_tokens"]),
                over_stock(result),
            ]
            for result in results
        ],
        "Recomputed: tokens whose KV blocks a preemption threw away; they are computed again.",
        left_aligned=2,
    )


def _tenants(scenario: str, results: Sequence[Result]) -> Sheet:
    tenants = sorted({tenant for result in results for tenant in result["attainment_by_tenant"]})
    return Sheet(
        f"Met per tenant, {scenario}",
        ("load", "arm", *tenants),
        [
            [
                f"{result['load']:g}x",
                result["arm"],
                *(_share(result["attainment_by_tenant"].get(tenant)) for tenant in tenants),
            ]
            for result in results
        ],
        "Share of each tenant's requests that met all their SLOs.",
        left_aligned=2,
    )


def _number(value: float | None) -> str:
    """A count, or a mean of counts. None: a server without the hook; clients cannot know it."""
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.1f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
