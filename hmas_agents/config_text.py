"""How does a configuration read as a file? Called by `hmas config`."""

import json
from pathlib import Path
from typing import Any

from hmas_agents.config import Config

HEADER = """\
# H-MAS controller. Every key is shown with its value; `hmas config` prints what a file
# resolves to. Keys left out keep their defaults.
"""


def render_resolved(config: Config) -> str:
    """The configuration as commented TOML; reading it back gives an equal `Config`."""
    blocks = [HEADER]
    for section, field in type(config).model_fields.items():
        table = getattr(config, section)
        lines = [f"# {field.description}", f"[{section}]"]
        for key, item in type(table).model_fields.items():
            lines += [f"# {item.description}", f"{key} = {_toml(getattr(table, key))}"]
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def _toml(value: Any) -> str:
    """A TOML literal: JSON's, but for the delete character, which TOML wants escaped."""
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    plain = str(value) if isinstance(value, Path) else value
    return json.dumps(plain, ensure_ascii=False).replace("\x7f", "\\u007f")
