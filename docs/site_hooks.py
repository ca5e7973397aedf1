"""MkDocs hooks of `make docs`: a link to a file outside docs/ leads to a copy of that file in the website.

In the checkout such links are plain relative ones (`../bench/results/...`), so the pages can be read without MkDocs.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

_LINK = re.compile(r"(\]\()(\.\./[^)#\s]+)((?:#[^)\s]*)?\))")
_COPIES = "checkout"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a copy of every file outside docs/ that a page links to."""
    from mkdocs.structure.files import File

    root = Path(config.docs_dir).parent
    linked = {path for page in files.documentation_pages() for path in _outside(page.src_uri, page.content_string)}
    for path in sorted(linked):
        if (root / path).is_file():
            files.append(File.generated(config, _copy_of(path), abs_src_path=str(root / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links to files outside docs/ at their copies."""
    del config
    here = posixpath.dirname(page.file.src_uri)

    def moved(match: re.Match[str]) -> str:
        path = _checkout_path(page.file.src_uri, match[2])
        if path is None or files.get_file_from_path(_copy_of(path)) is None:
            return match[0]
        return f"{match[1]}{posixpath.relpath(_copy_of(path), here or '.')})"

    return _LINK.sub(moved, markdown)


def _outside(page: str, markdown: str) -> Iterator[str]:
    for match in _LINK.finditer(markdown):
        path = _checkout_path(page, match[2])
        if path is not None:
            yield path


def _checkout_path(page: str, link: str) -> str | None:
    """The linked file, relative to the checkout; None where it lies in docs/."""
    path = os.path.normpath(posixpath.join("docs", posixpath.dirname(page), link))
    return None if path.startswith("docs/") else path


def _copy_of(path: str) -> str:
    # A page made of it would have links that lead elsewhere: it is shown as text.
    return f"{_COPIES}/{path}{'.txt' if path.endswith('.md') else ''}"
