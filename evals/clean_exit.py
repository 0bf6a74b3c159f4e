"""How does a command end when its input is wrong, or somebody stops it? Called by the commands."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import typer


@contextmanager
def clean_exit() -> Iterator[None]:
    """Expected errors are one line and exit code 2; Ctrl-C is exit code 130."""
    from evals.eval_run import EXPECTED

    try:
        yield
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise typer.Exit(130) from None
    except EXPECTED as error:
        typer.echo(f"error: {error}", err=True)
        if os.environ.get("HMAS_DEBUG"):
            typer.echo("\n".join(getattr(error, "__notes__", ())), err=True)
        raise typer.Exit(2) from error
