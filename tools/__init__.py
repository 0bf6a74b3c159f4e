"""What may an agent do to the engine?

The registry: every module here that defines `TOOL` is a tool. `build_tools` makes
them LangChain tools for a graph's ToolNode, `describe_tools` feeds `hmas tools list`.
"""

import importlib
import pkgutil
from typing import Any

from langchain_core.tools import BaseTool, StructuredTool

from tools.session import ControlSession
from tools.tool import Tool, ToolResult


def discover() -> dict[str, Tool]:
    """Tools by name, in alphabetical order of their modules."""
    modules = (
        importlib.import_module(f"tools.{module.name}") for module in pkgutil.iter_modules(__path__)
    )
    found = (getattr(module, "TOOL", None) for module in modules)
    return {tool.name: tool for tool in found if isinstance(tool, Tool)}


def build_tools(session: ControlSession) -> list[BaseTool]:
    """LangChain tools that write through `session`; they answer with a ToolResult as JSON."""
    return [_langchain_tool(tool, session) for tool in discover().values()]


def describe_tools() -> list[dict[str, Any]]:
    """Name, description and JSON schema of the arguments of every tool."""
    return [
        {"name": t.name, "description": t.description, "args": t.args.model_json_schema()}
        for t in discover().values()
    ]


def _langchain_tool(tool: Tool, session: ControlSession) -> BaseTool:
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


__all__ = ["ControlSession", "Tool", "ToolResult", "build_tools", "describe_tools", "discover"]
