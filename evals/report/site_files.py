"""What outside docs/ is on the site? The results; mkdocs calls `on_files` (`mkdocs.yml`).

A page of docs/ links to them as it does on disk (`../evals/results/steady.md`), so that the link
leads to the same page on the site and in a checkout.
"""

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files of `evals/results`."""
    root = Path(config.config_file_path).parent
    for path in sorted((root / "evals" / "results").rglob("*.*")):
        inside = path.relative_to(root).as_posix()
        at = File(inside, str(root), config.site_dir, config.use_directory_urls).dest_uri
        shown = File(
            f"../{inside}", config.docs_dir, config.site_dir, config.use_directory_urls,
            dest_uri=at, inclusion=InclusionLevel.NOT_IN_NAV,  # else .. counts as hidden
        )  # fmt: skip
        files.append(shown)
    return files
