"""Which prompts are on disk, which version does a label mean, and was one edited?

`NAME/vN.md` are the versions, `labels.toml` says which one a label means, and
`versions.lock` holds the SHA-256 of each published one (as `sha256sum -c` reads it). A
version that is not listed there is a draft. Read by the loader, written by `prompts.edit`.
"""

import hashlib
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent
LABELS = "labels.toml"
LOCK = "versions.lock"

_NAME = re.compile(r"[a-z][a-z0-9_]*")


class PromptError(ValueError):
    """A prompt that cannot be used: `FILE:LINE: KEY: what is wrong`, one line per problem."""

    @property
    def problems(self) -> list[str]:
        """Its lines."""
        return str(self).splitlines()


def names(root: Path = ROOT) -> list[str]:
    """Names of the prompts on disk."""
    return sorted(path.name for path in root.iterdir() if versions(path.name, root))


def versions(name: str, root: Path = ROOT) -> list[int]:
    """Versions of a prompt on disk, oldest first; empty when there is no such prompt."""
    if not _NAME.fullmatch(name):  # also keeps a name from leading out of the folder
        return []
    found = (re.fullmatch(r"v(\d+)\.md", path.name) for path in (root / name).glob("v*.md"))
    return sorted(int(match[1]) for match in found if match)


def version_path(name: str, version: int, root: Path = ROOT) -> Path:
    """Where a version is, or would be.

    Raises:
        PromptError: the name is none.
    """
    if not _NAME.fullmatch(name):
        raise PromptError(f"{root}: {name!r}: a prompt's name is of small letters, digits and _")
    return root / name / f"v{version}.md"


def labels(root: Path = ROOT) -> dict[str, dict[str, int]]:
    """Prompt name -> label -> version.

    Raises:
        PromptError: the label file is missing or broken; names file, line and key.
    """
    path = root / LABELS
    text = read(path)
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = re.search(r"line (\d+)", str(error))
        raise PromptError(f"{path}:{place[1] if place else 1}: {error}") from error
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise PromptError(f"{path}:{line_of(text, name)}: {name}: must be a table of labels")
        for label, version in table.items():
            if type(version) is not int:
                raise PromptError(
                    f"{path}:{line_of(text, label)}: {name}.{label}: must be a version number, "
                    f"got {version!r}"
                )
    return tables


def published(root: Path = ROOT) -> dict[str, str]:
    """Path from the root -> SHA-256 of each published version; empty without a lock file.

    Raises:
        PromptError: the lock file is broken; names file and line.
    """
    path = root / LOCK
    if not path.exists():
        return {}
    hashes = {}
    for number, line in enumerate(read(path).splitlines(), start=1):
        match = re.fullmatch(r"([0-9a-f]{64})  (\S+)", line)
        if match is None:
            raise PromptError(f"{path}:{number}: must be `SHA256  NAME/vN.md`, got {line!r}")
        hashes[match[2]] = match[1]
    return hashes


def lock_key(name: str, version: int) -> str:
    """What the lock file calls a version."""
    return f"{name}/v{version}.md"


def find_version(name: str, label_or_version: str | int, root: Path = ROOT) -> int:
    """The number of a version that exists.

    Raises:
        PromptError: no such prompt, label or version.
    """
    have = versions(name, root)
    if not have:
        raise PromptError(f"{root / name}: {name}: no such prompt (no v1.md there)")
    version = _number(name, label_or_version, root)
    if version not in have:
        raise PromptError(f"{root / name}: version {version} does not exist; there are {have}")
    return version


def read_version(name: str, version: int, root: Path = ROOT) -> str:
    """The text of a version, as it was when it was published.

    Raises:
        PromptError: it cannot be read, or it is no longer that text.
    """
    path = version_path(name, version, root)
    text = read(path)
    locked = published(root).get(lock_key(name, version))
    if locked not in {None, digest(text)}:
        raise PromptError(
            f"{path}:1: {path.name} was edited after it was published: make a new version "
            f"(`hmas prompts new {name} --file FILE`) and restore this one"
        )
    return text


def digest(text: str) -> str:
    """SHA-256 of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def read(path: Path) -> str:
    """The text of a file, its line ends as they are.

    Raises:
        PromptError: it cannot be read.
    """
    try:
        return path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(f"{path}: cannot be read: {error}") from error


def line_of(text: str, key: str) -> int:
    """1-based line of `text` that sets `key` (or opens the table of that name), else 1."""
    for number, line in enumerate(text.splitlines(), start=1):
        if re.match(rf"\[?\s*{re.escape(key)}\b", line):
            return number
    return 1


def _number(name: str, label_or_version: str | int, root: Path) -> int:
    if isinstance(label_or_version, int):
        return label_or_version
    if re.fullmatch(r"v?\d{1,9}", label_or_version, re.ASCII):
        return int(label_or_version.removeprefix("v"))
    table = labels(root).get(name, {})
    if label_or_version not in table:
        raise PromptError(
            f"{root / LABELS}: {name}.{label_or_version}: no such label; "
            f"there are {', '.join(table) or 'none'}"
        )
    return table[label_or_version]
