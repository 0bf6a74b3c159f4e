"""Are the packages that Python finds the ones in this repository?

Names such as `tools` are generic: a stray package in site-packages can shadow them.
"""

import importlib
import tomllib
from pathlib import Path

import pytest

from tests.source_tree import PACKAGES, ROOT, files, label

LISTED = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_is_imported_from_the_repository(package):
    origin = importlib.import_module(package).__file__
    assert origin is not None
    assert Path(origin).resolve() == ROOT / package / "__init__.py"


def test_pyproject_lists_every_package_and_no_other():
    present = {label(path.parent).replace("/", ".") for path in files("__init__.py")}
    ours = {name for name in present if name.partition(".")[0] in PACKAGES}
    assert set(LISTED) == ours
    assert len(LISTED) == len(set(LISTED))


def test_every_folder_with_python_is_a_package():
    bare = {label(p.parent) for p in files("*.py") if p.parent != ROOT} - {
        label(p.parent) for p in files("__init__.py")
    }
    assert bare == set()
