"""Which options do several commands share?"""

from pathlib import Path
from typing import Annotated, Any

import typer

from hmas_agents.config import Config, default_config_path, load_config

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="Configuration file; hmas.toml here by default.", metavar="FILE"),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
LedgerOption = Annotated[
    Path | None,
    typer.Option("--ledger", help="Ledger to read; ledger.path by default.", metavar="FILE"),
]
PromptOption = Annotated[
    str | None, typer.Option("--prompt", help="Ask with this prompt: a label or a version.")
]
ModelUrlOption = Annotated[
    str | None,
    typer.Option("--model-url", help="Ask the model at this endpoint.", metavar="URL"),
]
ModelOption = Annotated[str | None, typer.Option("--model", help="Ask this model.")]
UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="The server, or the fleet: URLs with commas, dns://NAME:PORT, "
        "k8s://NAMESPACE/LABEL=VALUE:PORT, ray://APP. engine.url by default.",
        metavar="URL",
    ),
]
TokenOption = Annotated[
    Path | None,
    typer.Option("--token-file", help="Its token; engine.token_file by default.", metavar="FILE"),
]


def read_config(path: Path | None, overrides: dict[str, Any] | None = None) -> Config:
    """The file named, else `hmas.toml` in the working directory, else the defaults."""
    return load_config(path or default_config_path(), overrides)
