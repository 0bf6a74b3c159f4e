"""How does a prompt change? New versions, labels, and what differs between two.

Called by `hmas prompts` and by the editor of the local web page. A version is written
once: read-only, with its SHA-256 in the lock file, which the loader compares. Writers
take turns, and readers see a file whole or not at all.
"""

import difflib
import fcntl
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from prompts.loader import Prompt, load_prompt, parse
from prompts.store import (
    LABELS,
    LOCK,
    ROOT,
    PromptError,
    digest,
    find_version,
    labels,
    lock_key,
    published,
    read,
    read_version,
    version_path,
    versions,
)

LABEL_NAMES = ("current", "candidate")
READ_ONLY = 0o444
WRITABLE = 0o644


def new_version(name: str, text: str, root: Path = ROOT) -> int:
    """Publish `text` as the next version of a prompt; its `version` line is set for the writer.

    Raises:
        PromptError: `FILE:LINE: KEY: what is wrong`, for every problem; nothing is written.
    """
    with _my_turn(root):
        path, version, text = _as_next(name, text, root)
        parse(path, name, version, text)
        path.parent.mkdir(exist_ok=True)
        _replace(path, text, READ_ONLY)
        _lock(name, version, text, root)
    return version


def check_text(name: str, text: str, root: Path = ROOT) -> list[str]:
    """What keeps `text` from being the next version of a prompt; empty when nothing does."""
    try:
        parse_next(name, text, root)
    except PromptError as error:
        return error.problems
    return []


def parse_next(name: str, text: str, root: Path = ROOT) -> Prompt:
    """The prompt that `new_version` would publish.

    Raises:
        PromptError: as `new_version`.
    """
    path, version, text = _as_next(name, text, root)
    return parse(path, name, version, text)


def set_label(name: str, label: str, version: int | None, root: Path = ROOT) -> None:
    """Let a label mean a version; None takes the label away. A draft is published by it.

    Raises:
        PromptError: no such label or version, a version that cannot be loaded, or `current`
            would mean nothing.
    """
    if label not in LABEL_NAMES:
        raise PromptError(f"{root / LABELS}: {label}: labels are {' and '.join(LABEL_NAMES)}")
    with _my_turn(root):
        tables = labels(root)
        if version is None:
            if label == "current":
                raise PromptError(f"{root / LABELS}: {name}.current: is in use: set it instead")
            tables.get(name, {}).pop(label, None)
        else:
            load_prompt(name, version, root)
            if lock_key(name, version) not in published(root):
                _lock(name, version, read_version(name, version, root), root)
                version_path(name, version, root).chmod(READ_ONLY)
            tables.setdefault(name, {})[label] = version
        _replace(root / LABELS, _labels_text(tables, read(root / LABELS)), WRITABLE)


def diff(name: str, a: str | int, b: str | int, root: Path = ROOT) -> str:
    """A unified diff from one version (or label) to another; empty when they are the same.

    Raises:
        PromptError: one of them does not exist.
    """
    paths = [version_path(name, find_version(name, one, root), root) for one in (a, b)]
    before, after = (read(path).splitlines(keepends=True) for path in paths)
    old, new = (path.relative_to(root).as_posix() for path in paths)
    return "".join(difflib.unified_diff(before, after, old, new))


def _as_next(name: str, text: str, root: Path) -> tuple[Path, int, str]:
    """Path and number of the next version, and `text` with that number in its front matter."""
    locked = (re.fullmatch(rf"{re.escape(name)}/v(\d+)\.md", key) for key in published(root))
    taken = [*versions(name, root), *(int(match[1]) for match in locked if match)]
    version = max(taken, default=0) + 1
    path = version_path(name, version, root)
    text = re.sub(r"\r\n?", "\n", text).strip() + "\n"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PromptError(f"{path}:1: is not text: {error}") from error
    head, mark, body = text.partition("\n---\n")
    line = f"version: {version}"
    if re.search(r"^version:", head, re.MULTILINE):
        head = re.sub(r"^version:.*$", line, head, count=1, flags=re.MULTILINE)
    elif mark:
        head += f"\n{line}"
    return path, version, head + mark + body


def _lock(name: str, version: int, text: str, root: Path) -> None:
    """Put the hash of a version into the lock file."""
    hashes = published(root) | {lock_key(name, version): digest(text)}
    lines = (f"{value}  {key}\n" for key, value in hashes.items())
    _replace(root / LOCK, "".join(lines), WRITABLE)


def _labels_text(tables: dict[str, dict[str, int]], before: str) -> str:
    """The label file with these tables; the comment at its head stays."""
    head = re.match(r"(?:#.*\n|\s*\n)*", before)
    blocks = [
        f"[{_key(name)}]\n" + "".join(f"{_key(key)} = {value}\n" for key, value in table.items())
        for name, table in tables.items()
    ]
    return (head[0] if head else "") + "\n".join(blocks)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)


def _replace(path: Path, text: str, mode: int) -> None:
    """Put `text` at `path`, whole."""
    with tempfile.NamedTemporaryFile("wb", dir=path.parent, prefix=".", delete=False) as file:
        try:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).chmod(mode)
            Path(file.name).replace(path)
        except OSError:
            Path(file.name).unlink(missing_ok=True)
            raise


@contextmanager
def _my_turn(root: Path) -> Iterator[None]:
    """Keep other writers out, of this process and of others."""
    try:
        folder = os.open(root, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)
    except OSError as error:
        raise PromptError(f"{root}: cannot be written: {error}") from error
