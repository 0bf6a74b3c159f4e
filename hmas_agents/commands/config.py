"""`hmas config`: what is the configuration, once files and defaults are put together?"""

import typer

from hmas_agents.commands.options import ConfigOption, read_config
from hmas_agents.config_text import render_resolved


def config(path: ConfigOption = None) -> None:
    """Print the resolved configuration as commented TOML.

    Try:

      hmas config                      what hmas run would use here

      hmas config > mine.toml          a file to edit, for --config
    """
    typer.echo(render_resolved(read_config(path)), nl=False)
