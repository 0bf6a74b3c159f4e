"""A file in the folder is a tool; an edit is taken up, a broken one leaves the last good."""

import os
import sys
from pathlib import Path

import pytest

from tools import ToolFolder, ToolResult
from tools.tool import Tool

GOOD = '''"""May an agent test?"""

from typing import Annotated

from pydantic import Field

from tools.tool import Change, tool

MOST = 0.4


@tool
def set_test_share(
    share: Annotated[float, Field(ge=0.0, le=MOST, description="How much.")],
) -> Change:
    """Keep a share free."""
    return {"prefill_share": min(share, MOST)}
'''


@pytest.fixture
def path(tmp_path):
    yield tmp_path / "set_test_share.py"
    sys.modules.pop("tools.set_test_share", None)


def most(tool: Tool) -> float:
    limit: float = tool.args.model_json_schema()["properties"]["share"]["maximum"]
    return limit


def write(path: Path, text: str) -> None:
    """Replace the file as editors do; equal times and sizes must not hide it."""
    path.unlink(missing_ok=True)
    path.write_text(text)
    path.chmod(0o644)
    os.utime(path, ns=(0, path.stat().st_ino))


def test_a_new_file_is_picked_up(path):
    folder = ToolFolder(path.parent)
    assert (folder.tools, folder.problems, folder.refresh()) == ({}, {}, False)
    write(path, GOOD)
    assert folder.refresh()
    assert list(folder.tools) == ["set_test_share"]
    assert folder.tools["set_test_share"].description == "Keep a share free."


def test_nothing_is_imported_again_while_nothing_changes(path):
    write(path, GOOD)
    folder = ToolFolder(path.parent)
    tools = folder.tools
    assert not folder.refresh()
    assert folder.tools is tools


def test_an_edit_of_the_same_length_within_a_second_is_taken_up(path):
    path.write_text(GOOD)
    folder = ToolFolder(path.parent)
    stat = path.stat()
    path.write_text(GOOD.replace("0.4", "0.3"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000))
    assert folder.refresh()
    assert most(folder.tools["set_test_share"]) == 0.3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (GOOD.replace("return {", "return {{"), ":17: SyntaxError"),
        (GOOD.replace("MOST = 0.4", "MOST = 0.2\nMOST = LEAST"), ":10: NameError"),
        (GOOD.replace("from pydantic", "from pydantics"), ":5: ModuleNotFoundError"),
        (
            GOOD.replace('    """Keep a share free."""\n', ""),
            ":12: set_test_share: needs a docstring",
        ),
        (
            GOOD.replace("def set_test_share", "def set_other"),
            ":1: must define a function set_test",
        ),
        (GOOD.replace("@tool\n", ""), ":1: must define a function set_test_share"),
        ("", ":1: must define a function set_test_share"),
        (GOOD + "raise SystemExit(3)\n", ":18: SystemExit"),
    ],
    ids=["syntax", "name", "import", "docstring", "other name", "undecorated", "empty", "exit"],
)
def test_a_broken_edit_leaves_the_last_good_one_and_says_so(path, text, said):
    write(path, GOOD)
    folder = ToolFolder(path.parent)
    tool = folder.tools["set_test_share"]
    write(path, text)
    assert not folder.refresh()
    assert folder.tools["set_test_share"] is tool
    assert tool.change(share=0.9) == {"prefill_share": 0.4}, "the old one works with its own names"
    assert f"set_test_share.py{said}" in folder.problems["set_test_share"]
    write(path, GOOD.replace("0.4", "0.1"))
    assert folder.refresh()
    assert most(folder.tools["set_test_share"]) == 0.1
    assert folder.problems == {}


def test_a_new_file_that_is_broken_leaves_the_others(path):
    write(path, GOOD)
    folder = ToolFolder(path.parent)
    broken = path.with_name("set_half_written.py")
    broken.write_text("def set_half_")
    assert not folder.refresh()
    assert list(folder.tools) == ["set_test_share"]
    assert list(folder.problems) == ["set_half_written"]
    broken.unlink()
    folder.refresh()
    assert folder.problems == {}


def test_a_file_that_goes_away_leaves_its_tool_and_says_so(path):
    write(path, GOOD)
    folder = ToolFolder(path.parent)
    path.unlink()
    assert not folder.refresh()
    assert list(folder.tools) == ["set_test_share"]
    assert "is gone" in folder.problems["set_test_share"]
    write(path, GOOD)
    assert folder.refresh()
    assert folder.problems == {}


def test_only_files_named_verb_noun_are_tools(tmp_path):
    for name in ("session.py", "_set_x.py", "set_x.txt", "Set_X.py", ".set_x.py", "set_x.py~"):
        (tmp_path / name).write_text("raise RuntimeError")
    folder = ToolFolder(tmp_path)
    assert (folder.tools, folder.problems) == ({}, {})


def test_the_frame_of_the_package_is_not_imported_anew():
    ToolFolder()
    assert sys.modules["tools.tool"].ToolResult is ToolResult
