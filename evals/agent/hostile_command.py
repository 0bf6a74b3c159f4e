"""What if the policy agent's model were out to harm? `hmas eval hostile` is such a model."""

from typing import Annotated

import typer

from evals.agent.hostile import Kind


def hostile(
    kind: Annotated[Kind, typer.Argument(help="What it answers.")],
    *,
    policy: Annotated[str, typer.Option(help="Policy to propose, with parameters.")] = "fcfs",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 8399,
) -> None:
    """A model out to harm, for a controller or an eval to be pointed at, until Ctrl-C.

    worst: always the same proposal, with confidence 1. garbage: nothing that can be read.
    injection: proposals dressed up to be believed, or run.

    hmas eval hostile worst --policy fcfs --port 8399

    hmas eval run my_suite.toml --arms hmas --model-url http://127.0.0.1:8399/v1
    """
    import threading

    from evals.agent.hostile import replies
    from evals.agent.model_double import serving
    from serving.policies import parse_policy

    try:
        name, params = parse_policy(policy)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--policy") from error
    try:
        with serving(replies(kind, name, params), port=port) as model:
            typer.echo(f"{kind}, proposing {policy}, at {model.url}", err=True)
            try:
                threading.Event().wait()
            finally:
                typer.echo(f"asked {len(model.asked)} times", err=True)
    except OSError as error:
        raise typer.BadParameter(
            f"port {port} is taken ({error.strerror}): give another", param_hint="--port"
        ) from error
