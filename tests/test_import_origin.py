"""Are the packages that Python finds the ones in this repository?

Names such as `tools` are generic: a stray package in site-packages can shadow them.
"""

import importlib
import tomllib
from pathlib import Path

import pytest

from tests.source_tree import PACKAGES, ROOT, files, label

SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
LISTED, DATA = SETUPTOOLS["packages"], SETUPTOOLS["package-data"]
# What an installed H-MAS never reads: results are for readers, charts and images for a clone.
NOT_INSTALLED = ("evals/results/", "serving/deploy/")


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


def test_a_wheel_has_every_file_that_a_package_reads():
    held = {
        label(path)
        for package, patterns in DATA.items()
        for pattern in patterns
        for path in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    data = {
        label(path)
        for path in files("*")
        if path.is_file() and label(path).partition("/")[0] in PACKAGES and path.suffix != ".py"
    }
    missing = {name for name in data - held if not name.startswith(NOT_INSTALLED)}
    assert {name for name in missing if not name.endswith("README.md")} == set()


def test_every_folder_with_python_is_a_package():
    bare = {label(p.parent) for p in files("*.py") if p.parent != ROOT} - {
        label(p.parent) for p in files("__init__.py")
    }
    assert bare == set()
