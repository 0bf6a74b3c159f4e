"""How do two runs differ? Their timelines on one scale, and a table of differences."""

from typing import Any

from hmas_agents.ledger import Run
from hmas_agents.ui.ledgers import RunData
from hmas_agents.ui.timeline import build_timeline, summarise_run

# Key of the summary, what it is, its unit, and which way is better (0: neither).
ROWS = (
    ("span_s", "length", "s", 0),
    ("offered", "requests finished", "", 0),
    ("attainment", "attainment", "share", 1),
    ("goodput_rps", "goodput", "requests/s", 1),
    ("worst_tenant", "attainment of the worst tenant", "share", 1),
    ("switches", "policy switches", "", 0),
    ("limit_changes", "limit changes", "", 0),
    ("decisions", "decisions", "", 0),
    ("advised", "changes advised only", "", 0),
    ("refused", "changes refused", "", 0),
    ("faults", "faults", "", -1),
    ("prediction_error", "mean error of predictions", "share", -1),
    ("model_latency_s", "mean model latency", "s", -1),
    ("model_tokens", "model tokens", "", -1),
)


def compare_runs(first: tuple[str, Run, RunData], second: tuple[str, Run, RunData]) -> Any:
    """Both timelines with bins of one width, the differences, and differing settings.

    Args:
        first: a run's key, the run, and what is known of it.
        second: the run that is compared with it.
    """
    width_s = max(build_timeline(data)["bin_s"] for _, _, data in (first, second))
    summaries = [summarise_run(*side) for side in (first, second)]
    a, b = summaries
    rows = [
        {"name": name, "unit": unit, "better": better, "a": a[key], "b": b[key]}
        for key, name, unit, better in ROWS
        if a[key] or b[key]
    ]
    tenants = sorted({*a["attainment_by_tenant"], *b["attainment_by_tenant"]})
    causes = sorted({*a["misses"], *b["misses"]})
    return {
        "sides": [
            {"summary": summary, "timeline": build_timeline(side[2], width_s)}
            for summary, side in zip(summaries, (first, second), strict=True)
        ],
        "rows": rows,
        "tenants": [
            {
                "name": name,
                "a": a["attainment_by_tenant"].get(name),
                "b": b["attainment_by_tenant"].get(name),
            }
            for name in tenants
        ],
        "misses": [
            {"name": cause, "a": a["misses"].get(cause, 0), "b": b["misses"].get(cause, 0)}
            for cause in causes
        ],
        "settings": _settings(first[1].config, second[1].config),
    }


def _settings(a: dict[str, Any], b: dict[str, Any]) -> list[dict[str, Any]]:
    """Configuration keys that differ, dotted."""
    old, new = flatten(a), flatten(b)
    return [
        {"key": key, "a": old.get(key), "b": new.get(key)}
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key)
    ]


def flatten(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as dotted keys."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat |= flatten(item, f"{prefix}{key}.") if isinstance(item, dict) else {prefix + key: item}
    return flat
