"""What may an agent do to the engine?

The registry: every verb_noun file here is a tool. `langchain_tool` makes one ready for a
graph's ToolNode, `describe_tools` feeds `hmas tools list`.
"""

from typing import Any

from langchain_core.tools import BaseTool, StructuredTool

from tools.folder import ToolFolder
from tools.session import ControlSession
from tools.tool import Tool, ToolError, ToolResult


def discover() -> dict[str, Tool]:
    """Tools by name, in alphabetical order.

    Raises:
        ToolError: a file here is no usable tool; names file and line.
    """
    folder = ToolFolder()
    if folder.problems:
        raise ToolError("\n".join(folder.problems.values()))
    return folder.tools


def describe_tools() -> list[dict[str, Any]]:
    """Name, file, problem, description and JSON schema of the arguments of every tool.

    A file that is no usable tool has only the first three.
    """
    folder = ToolFolder()
    rows: list[dict[str, Any]] = []
    for name in sorted(folder.tools.keys() | folder.problems.keys()):
        row: dict[str, Any] = {
            "name": name,
            "file": f"tools/{name}.py",
            "problem": folder.problems.get(name, ""),
        }
        if name in folder.tools:
            tool = folder.tools[name]
            row |= {"description": tool.description, "args": tool.args.model_json_schema()}
        rows.append(row)
    return rows


def langchain_tool(tool: Tool, session: ControlSession) -> BaseTool:
    """One tool for a ToolNode; it writes through `session`."""

    def call(**args: Any) -> str:
        return tool.call(session, args).model_dump_json()

    def refuse(error: Any) -> str:
        return ToolResult(accepted=False, reason=tool.explain(error)).model_dump_json()

    return StructuredTool.from_function(
        func=call,
        name=tool.name,
        description=tool.description,
        args_schema=tool.args,
        handle_validation_error=refuse,
    )


__all__ = [
    "ControlSession",
    "Tool",
    "ToolError",
    "ToolFolder",
    "ToolResult",
    "describe_tools",
    "discover",
    "langchain_tool",
]
