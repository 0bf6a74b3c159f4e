"""Do imports point one way, graphs -> hmas_agents -> tools -> serving, and never in a circle?"""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.source_tree import PACKAGES, ROOT, label

MAY_IMPORT = {
    "serving": set(),
    "tools": {"serving"},
    "prompts": set(),
    "hmas_agents": {"serving", "tools", "prompts"},
    "graphs": {"serving", "tools", "prompts", "hmas_agents"},
    "evals": {"serving", "tools", "prompts", "hmas_agents", "graphs"},
}


def imported(source: str) -> list[tuple[int, str]]:
    """Line and top-level name of every absolute import, wherever it stands."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name.partition(".")[0]) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.append((node.lineno, (node.module or "").partition(".")[0]))
    return found


def imports_of(package: str) -> list[tuple[str, str]]:
    return [
        (f"{label(path)}:{line}", name)
        for path in sorted((ROOT / package).rglob("*.py"))
        for line, name in imported(path.read_text())
    ]


def test_the_reader_of_imports_sees_every_form():
    source = "import a.b, c\nfrom d.e import f\nfrom . import g\ndef h():\n    import i\n"
    assert imported(source) == [(1, "a"), (1, "c"), (2, "d"), (5, "i")]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_those_below_it(package):
    barred = {*PACKAGES, "tests"} - MAY_IMPORT[package] - {package}
    wrong = [f"{where} imports {name}" for where, name in imports_of(package) if name in barred]
    assert wrong == []


@pytest.mark.parametrize("package", [name for name in PACKAGES if name != "serving"])
def test_only_serving_imports_vllm(package):
    """But for the plug-in of the evals, which vLLM wants to be of its own class."""
    found = [where for where, name in imports_of(package) if name == "vllm"]
    assert [where for where in found if not where.startswith("evals/live/answer_length.py:")] == []


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules_imported(source: str, known: set[str]) -> set[str]:
    """Modules of `known` that a source imports: lazily and for types only, too."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names & known or {node.module}
    return found & known


def circle_in(sources: dict[str, str]) -> list[str]:
    """Modules that import each other in a circle, the first one also at the end; [] if none do."""
    known = set(sources)
    graph = {name: modules_imported(text, known) - {name} for name, text in sources.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        return circle
    return []


def test_no_modules_import_each_other_in_a_circle():
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    sources = {module_of(path): path.read_text() for path in paths}
    assert circle_in(sources) == []


def rooms_of(sources: dict[str, str]) -> dict[str, str]:
    """The imports of each room of a package: a folder, or a file at its top."""
    rooms: dict[str, str] = {}
    for name, text in sources.items():
        room = ".".join(name.split(".")[:2])
        others = {".".join(other.split(".")[:2]) for other in modules_imported(text, set(sources))}
        lines = [f"import {other}" for other in sorted(others) if "." in other]
        rooms[room] = "\n".join([rooms.get(room, ""), *lines])
    return rooms


@pytest.mark.parametrize(
    ("package", "room", "planted"),
    [("serving", "serving.contracts.limits", "serving.launch"),
     ("evals", "evals.suite.suite", "evals.sim")],
)  # fmt: skip
def test_no_rooms_import_each_other_in_a_circle(package, room, planted):
    sources = {module_of(path): path.read_text() for path in (ROOT / package).rglob("*.py")}
    assert circle_in(rooms_of(sources)) == []
    sources[room] += f"\nimport {planted}"
    assert circle_in(rooms_of(sources))


def test_serving_has_at_most_fourteen_entries_at_its_top():
    entries = {path.name for path in (ROOT / "serving").iterdir()} - {"__pycache__"}
    assert len(entries) <= 14, sorted(entries)


@pytest.mark.parametrize(
    "back",
    ["from a.x import f", "import a.x", "from a import x", "def f():\n    from a.x import g",
     "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from a.x import T"],
)  # fmt: skip
def test_a_planted_circle_is_found_in_whatever_form(back):
    assert circle_in({"a": "", "a.x": "from a.y import h", "a.y": back})
    assert not circle_in({"a": "", "a.x": "from a.y import h", "a.y": "import ast"})
