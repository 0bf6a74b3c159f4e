"""How steady is attainment over time, and how fast does it recover after a change?

Works on attainment in windows of 30 s by time of arrival; seconds are counted from the first
arrival. A request counts where it arrived, so a window shows what its clients got, however
late. Called by `evals.result.metrics`; the keys are part of a result.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

WINDOW_S = 30.0
TARGET = 0.9
MARGIN = 0.05  # attainment; what a window may fall short of before and still be recovered

Window = tuple[float, float]  # middle in seconds after the first arrival, attainment


def stability(
    windows: Sequence[Window],
    start_s: float,
    end_s: float,
    moments_s: Sequence[float],
    switches: int,
) -> dict[str, Any]:
    """Deviation, worst window, minutes below target, recovery, switches per hour.

    Args:
        windows: in order; those of the warm-up and without arrivals are missing.
        start_s: end of the warm-up. A window that reaches over it or over `end_s` counts only
            if there is no whole one.
        end_s: of what counts.
        moments_s: when traffic changes; those within the warm-up are left out.
        switches: of the policy, in the whole run.
    """
    half_s = WINDOW_S / 2
    whole = [w for w in windows if w[0] - half_s >= start_s and w[0] + half_s <= end_s]
    counted = whole or list(windows)
    shares = [share for _, share in counted]
    moments_s = [moment_s for moment_s in moments_s if start_s <= moment_s < end_s]
    return {
        "window_s": WINDOW_S,
        "windows": [list(window) for window in counted],
        "deviation": float(np.std(shares)),
        "worst": min(shares),
        "target": TARGET,
        "below_target_min": sum(share < TARGET for share in shares) * WINDOW_S / 60,
        "recovery": [
            {"at_s": moment_s, "recovery_s": recovery_s(counted, before_s, moment_s, until_s)}
            for before_s, moment_s, until_s in zip(
                [start_s, *moments_s], moments_s, [*moments_s[1:], end_s], strict=False
            )
        ],
        "switches_per_hour": switches * 3600 / end_s,
    }


def recovery_s(
    windows: Sequence[Window], before_s: float, moment_s: float, until_s: float
) -> float | None:
    """Seconds from a change until attainment is back for good, or None if it is not.

    Back is at or above the target, or the mean since the change before (`before_s`) less a
    margin where that is lower; for good is until the next change (`until_s`). 0: it never fell.
    A window belongs where its middle lies.
    """
    earlier = [share for middle_s, share in windows if before_s <= middle_s < moment_s]
    level = min([TARGET, *([float(np.mean(earlier)) - MARGIN] if earlier else [])])
    after = [window for window in windows if moment_s <= window[0] < until_s]
    low_s = [middle_s for middle_s, share in after if share < level]
    if not low_s:
        return 0.0 if after else None
    if low_s[-1] == after[-1][0]:
        return None
    return low_s[-1] + WINDOW_S / 2 - moment_s
