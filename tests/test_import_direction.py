"""Do imports point one way: graphs -> hmas_agents -> tools -> serving?"""

import ast

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
    assert [where for where, name in imports_of(package) if name == "vllm"] == []
