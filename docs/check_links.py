"""Check the links of the pages that were built, as a reader's browser would follow them.

What leads to a page, an image or an anchor of ours must be there. What leads outside must be
well-formed; whether it is there is checked by ``tox -e linkcheck``, for building needs no network.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

ATTRIBUTES = ("href", "src")


class Page(HTMLParser):
    """A page: which anchors it has, and where it leads."""

    def __init__(self, text: str) -> None:
        """Read it.

        Args:
            text: The page's HTML.
        """
        super().__init__()
        self.anchors = {""}
        self.links: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take note of what a tag says."""
        values = {name: value for name, value in attrs if value is not None}
        self.anchors.update(values[name] for name in ("id", "name") if name in values)
        self.links.update(values[name] for name in ATTRIBUTES if name in values)


def check(folder: Path) -> list[str]:
    """Check all pages below a folder.

    Args:
        folder: What Sphinx built.

    Returns:
        What is wrong.
    """
    pages = {path.resolve(): Page(path.read_text()) for path in sorted(folder.rglob("*.html"))}
    if not pages:
        return [f"there are no pages in {folder}"]
    return [
        f"{path.relative_to(folder.resolve())}: {link!r}: {wrong}"
        for path, page in pages.items()
        for link in sorted(page.links)
        if (wrong := judge(path, link, pages))
    ]


def judge(path: Path, link: str, pages: dict[Path, Page]) -> str:
    """Say what is wrong with a link, if anything is.

    Args:
        path: The page that it is on.
        link: Where it leads.
        pages: All pages.
    """
    try:
        parts = urlsplit(urljoin(path.as_uri(), link))
    except ValueError as error:
        return str(error)
    if parts.scheme in ("data", "mailto"):
        return ""
    if parts.scheme != "file":
        if not parts.hostname:
            return "there is no host"
        return "" if parts.scheme == "https" else "it should be https"
    target = Path(unquote(parts.path))
    if not target.is_file():
        return "there is no such file"
    if target in pages and unquote(parts.fragment) not in pages[target].anchors:
        return "the page has no such anchor"
    return ""


if __name__ == "__main__":
    sys.exit("\n".join(check(Path(sys.argv[1]))) or 0)
