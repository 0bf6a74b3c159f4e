"""Is the house kept: small files, telling names, a README in every folder?"""

import re

from tests.source_tree import PACKAGES, ROOT, files, folders, label

MAX_LINES = 400
MAX_DEPTH = 2  # folders below a top-level one
VAGUE = {"util", "utils", "manager", "helper", "helpers", "common", "misc"}


def test_no_python_file_is_over_400_lines():
    lengths = {label(path): len(path.read_text().splitlines()) for path in files("*.py")}
    assert {name: n for name, n in lengths.items() if n > MAX_LINES} == {}


def test_every_top_level_folder_is_known_and_has_a_readme():
    names = [folder.name for folder in folders()]
    assert set(names) == {*PACKAGES, "docs", "tests"}
    assert [name for name in names if not (ROOT / name / "README.md").is_file()] == []


def test_no_module_has_a_vague_name():
    vague = [label(p) for p in files("*.py") if VAGUE & set(re.split(r"[_/.]", label(p)))]
    assert vague == []


def test_no_folder_is_nested_deeper_than_two():
    assert [label(p) for p in files("*") if len(p.relative_to(ROOT).parts) > MAX_DEPTH + 2] == []


def test_every_module_says_which_question_it_answers():
    silent = [
        label(path)
        for path in files("*.py")
        if path.read_text().strip() and not path.read_text().startswith(('"""', 'r"""'))
    ]
    assert silent == []
