"""Results at several loads and seeds, for the tests of the report."""

from evals.report.summary import Summary
from evals.result.metrics import CaseRun, summarise
from tests.evals.samples import outcome


def result_of(scenario, load, arm, met, **more):
    """A result with attainment `met`; `more` are further keys, `offered_rps` among them."""
    result = summarise(CaseRun(scenario, load, arm, [outcome()], ()), 1.0)
    return result | more | {"attainment": met, "goodput_rps": met * more["offered_rps"]}


def runs(met_by_arm, *, seeds=(1, 2), loads=(0.5, 1.0, 2.0), scenario="conv", **more):
    """Results where seed 2 offers a tenth more than seed 1; attainment per load as given."""
    return [
        result_of(scenario, load, arm, met[i], seed=seed, offered_rps=10 * load * (0.9 + seed / 10),
                  **more)
        for seed in seeds
        for i, load in enumerate(loads)
        for arm, met in met_by_arm.items()
    ]  # fmt: skip


def summary(met_by_arm, **options):
    return Summary.of(runs(met_by_arm, **options))
