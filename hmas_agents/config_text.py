"""How does a configuration read as a file? Called by `hmas config`."""

import json
from pathlib import Path
from typing import Any

from hmas_agents.config import Config, Section

HEADER = """\
# H-MAS controller. Every key is shown with its value; `hmas config` prints what a file
# resolves to. Keys left out keep their defaults.
"""


def render_resolved(config: Config) -> str:
    """The configuration as commented TOML; reading it back gives an equal `Config`."""
    blocks = [HEADER]
    for section, field in type(config).model_fields.items():
        blocks += _tables(section, field.description, getattr(config, section))
    return "\n".join(blocks)


def _tables(name: str, description: str | None, table: Section) -> list[str]:
    """A section as a table, and those within it as tables of their own."""
    lines, inner = [f"# {description}", f"[{name}]"], list[str]()
    for key, item in type(table).model_fields.items():
        value = getattr(table, key)
        if isinstance(value, Section):
            inner += _tables(f"{name}.{key}", item.description, value)
        else:
            lines += [f"# {item.description}", f"{key} = {_toml(value)}"]
    return ["\n".join(lines) + "\n", *inner]


def _toml(value: Any) -> str:
    """A TOML literal: JSON's, but for the delete character, which TOML wants escaped."""
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(k)} = {_toml(v)}" for k, v in value.items()) + "}"
    plain = str(value) if isinstance(value, Path) else value
    return json.dumps(plain, ensure_ascii=False).replace("\x7f", "\\u007f")
