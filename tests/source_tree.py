"""What files does this repository consist of? Read by the tests of its structure."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("serving", "tools", "prompts", "hmas_agents", "graphs", "evals")

_NOT_OURS = {"var", "build", "__pycache__"}


def folders() -> list[Path]:
    """The top-level folders, sorted; caches, outputs and hidden ones left out."""
    return sorted(
        path
        for path in ROOT.iterdir()
        if path.is_dir()
        and not path.name.startswith(".")
        and path.name not in _NOT_OURS
        and path.suffix != ".egg-info"
    )


def files(pattern: str) -> list[Path]:
    """Files under the top-level folders and beside them that match, sorted."""
    nested = (path for folder in folders() for path in folder.rglob(pattern))
    return sorted(
        path
        for path in (*ROOT.glob(pattern), *nested)
        if path.is_file() and "__pycache__" not in path.parts
    )


def label(path: Path) -> str:
    """The path from the root, for messages."""
    return path.relative_to(ROOT).as_posix()
