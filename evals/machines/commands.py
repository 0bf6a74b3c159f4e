"""`hmas profile`: which machines are there, and how is one made from measured kernels?"""

from pathlib import Path
from typing import Annotated

import typer

from hmas_agents.commands.options import JsonOption

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode="rich",
    help="Machine profiles: list them, make one from measured kernels.",
)  # fmt: skip


@app.command("list")
def list_profiles(*, json_output: JsonOption = False) -> None:
    """Show the profiles in evals/profiles: step times, KV cache, origin (`--json`).

    hmas profile list
    """
    from evals.machines.profile_file import load_profile, profile_names
    from evals.machines.silicon import profiles_sheet, step_times_ms
    from evals.report.sheet import show

    profiles = [load_profile(name) for name in profile_names()]
    document = [
        {"name": each.name, "provenance": each.provenance, "kv_blocks": each.kv_blocks,
         "block_size": each.block_size, "step_ms": step_times_ms(each)}
        for each in profiles
    ]  # fmt: skip
    show(document, json_output, profiles_sheet(profiles))


@app.command()
def silicon(
    *,
    gpu: Annotated[str, typer.Option(metavar="GPU", help="For example h200_sxm.")],
    model: Annotated[
        str, typer.Option(metavar="MODEL", help="For example meta-llama/Meta-Llama-3.1-8B.")
    ],
    tp: Annotated[int, typer.Option(min=1, help="GPUs that share the model.")] = 1,
    vllm: Annotated[
        str, typer.Option(metavar="VERSION", help="Of the kernels; default: the current one.")
    ] = "",
    host_ms: Annotated[
        float,
        typer.Option(
            min=0, help="Added to each step for the host's work, which no kernel's time includes."
        ),
    ] = 0.2,
    max_model_len: Annotated[int, typer.Option(min=128, help="Longest request.")] = 16_384,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing: compare with the profile of that name.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder for GPU_MODEL.toml.")] = Path("var/profiles"),
    json_output: JsonOption = False,
) -> None:
    """Make a profile of a GPU that is not at hand, from kernels that NVIDIA measured on it.

    Needs `aiconfigurator-core` (x86-64 Linux, 115 MB), and no GPU. The profile has a cost model
    for vLLM and, where it was measured, one for SGLang, how far steps lie from it, and the KV
    blocks. `--profile FILE` of `hmas plan` and `hmas eval fidelity` takes the file.

    hmas profile silicon --gpu h200_sxm --model meta-llama/Meta-Llama-3.1-8B
    """
    from evals.machines.profile_file import PROFILES, profile_text
    from evals.machines.silicon import Wanted, silicon_profile, step_times_ms
    from evals.report.sheet import show
    from hmas_agents.commands.exits import FAILED, CommandError

    wanted = Wanted(gpu, model, tp, vllm, host_ms / 1000, max_model_len)
    made = silicon_profile(wanted)
    text = profile_text(made.profile, made.comments)
    path = (PROFILES if check else out) / f"{wanted.name}.toml"
    if check:
        old = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        new = text.splitlines()
        if changed := sorted(set(new) ^ set(old), key=(new + old).index):
            raise CommandError(f"{path}: {len(changed)} lines differ: {changed[0]}", FAILED)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    document = {
        "name": wanted.name, "file": str(path), "provenance": made.profile.provenance,
        "kv_blocks": made.profile.kv_blocks, "step_ms": step_times_ms(made.profile),
        "kernels_ms": made.kernels_ms,
    }  # fmt: skip
    show(document, json_output)
    typer.echo(f"{'the same' if check else 'written'}: {path}", err=True)
