"""How is the embedded model taught operators' words? `hmas teach`."""

from pathlib import Path
from typing import Annotated

import typer

from hmas_agents.commands.options import JsonOption


def teach(
    *,
    out: Annotated[Path, typer.Option(help="Folder of the adapter; must not exist.")] = Path(
        "var/models/adapter"
    ),
    steps: Annotated[int, typer.Option(min=1, help="Batches of 16 texts.")] = 1750,
    seed: Annotated[int, typer.Option(min=0, help="Of texts and weights.")] = 0,
    merge: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Train nothing: merge the adapter at --adapter into "
                     "the embedded model, as a folder that vLLM serves."),
    ] = None,
    adapter: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="--merge: this one; by default ours.")
    ] = None,
    json_output: JsonOption = False,
) -> None:  # fmt: skip
    """Teach the embedded model to read operators' words, or merge what it was taught.

    Texts are drawn from the phrasings in hmas_agents/teach/phrases; a twentieth is held out. Then
    the adapter is judged by these and by the development cases, and its confidence is fitted.
    Needs peft (extra `teach`) and the model of `make model`. Cut short while it trained, it leaves
    nothing; cut short while it was judged, the same command goes on.

    hmas teach --out var/models/adapter

    hmas teach --merge var/models/mine --adapter var/models/adapter

    hmas serve var/models/mine
    """
    from hmas_agents.intent.taught_reader import ADAPTER
    from hmas_agents.teach.adapter import merge_adapter
    from serving.launch.model import SMOLLM2

    if merge is not None:
        merge_adapter(SMOLLM2, adapter or ADAPTER, merge)
        typer.echo(f"{merge}: hmas serve {merge}", err=True)
        return
    if adapter is not None:
        raise typer.BadParameter("--adapter: goes with --merge")
    _teach(out, steps, seed, json_output)


def _teach(out: Path, steps: int, seed: int, json_output: bool) -> None:
    from functools import partial

    from evals.progress import progress_bar
    from evals.report.sheet import show
    from evals.words.teaching import judge_adapter, train_adapter
    from evals.words.words_command import DEVELOPMENT
    from hmas_agents.intent.taught_reader import RESULTS
    from hmas_agents.teach.adapter import CARD, TeachError
    from serving.launch.model import SMOLLM2

    if (out / CARD).exists() or (out.exists() and not (out / RESULTS).exists()):
        raise TeachError(f"{out} exists: remove it, or name another --out")
    with progress_bar() as bar:
        if not out.exists():
            train_adapter(
                SMOLLM2, out, steps, seed,
                lambda at: bar(f"training, loss {at.loss:.3f}", at.done, at.steps),
            )  # fmt: skip
        results = judge_adapter(SMOLLM2, out, DEVELOPMENT, partial(bar, "judging"))
    show(results, json_output, (out / CARD).read_text(encoding="utf-8"))
    typer.echo(f"adapter: {out}", err=True)
