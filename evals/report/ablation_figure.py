"""How does goodput move with load, policy by policy, without and with the rules?

Small multiples, one panel per policy; drawn for the HTML page.
"""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evals.report.ablation import Ablation
from evals.report.figures import HMAS, OTHERS, STOCK, svg

_COLUMNS = 4


def ablation_figure(ablation: Ablation) -> str:
    """Goodput over load of each policy (with rules solid, without dashed) and of stock, as SVG."""
    rows = -(-len(ablation.policies) // _COLUMNS)

    def draw(figure: Figure) -> None:
        grid = figure.subplots(rows, _COLUMNS, sharex=True, sharey=True, squeeze=False)
        panels: list[Axes] = list(grid.flat)
        for panel, policy in zip(panels, ablation.policies, strict=False):
            panel.patch.set_alpha(0)
            panel.grid()
            panel.set_title(policy)
            _line(panel, ablation, "vllm-fcfs", "stock vLLM", STOCK, "-")
            _line(panel, ablation, f"fixed-{policy}", "without rules", OTHERS[0], "--")
            arm = ablation.with_all_rules(policy)
            _line(panel, ablation, arm, "with all rules", HMAS, "-")
        panels[0].set_ylim(bottom=0)  # shared by all
        for panel in panels[len(ablation.policies) :]:
            panel.set_axis_off()
        figure.supxlabel("offered load, times capacity")
        figure.supylabel("goodput (requests/s)")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=3)

    return svg(f"ablation-{ablation.scenario}", 1.0 + 1.6 * rows, draw)


def _line(
    panel: Axes, ablation: Ablation, arm: str, label: str, colour: str, style: str
) -> None:
    points = [
        (load, goodput)
        for load in ablation.loads
        if (goodput := ablation.goodput_rps(load, arm)) is not None
    ]
    loads, goodputs = [load for load, _ in points], [goodput for _, goodput in points]
    panel.plot(loads, goodputs, style, marker=".", color=colour, lw=1.4, label=label)
