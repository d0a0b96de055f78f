"""Check the links of the HTML pages that Sphinx built.

A link to a page, an image or an anchor of this documentation must have a target. A link to another
site must be a well-formed https URL. This script doesn't connect to other sites, because the build
needs no network; ``tox -e linkcheck`` does.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

ATTRIBUTES = ("href", "src")


class Page(HTMLParser):
    """The anchors and the links of an HTML page."""

    def __init__(self, text: str) -> None:
        """Parse the page.

        Args:
            text: The HTML of the page.
        """
        super().__init__()
        self.anchors = {""}
        self.links: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect the anchors and links of a tag."""
        values = {name: value for name, value in attrs if value is not None}
        self.anchors.update(values[name] for name in ("id", "name") if name in values)
        self.links.update(values[name] for name in ATTRIBUTES if name in values)


def check(folder: Path) -> list[str]:
    """Check all pages below a folder.

    Args:
        folder: The output folder of Sphinx.

    Returns:
        One message for each broken link.
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
    """Check one link.

    Args:
        path: The page that contains the link.
        link: The target as written in the page.
        pages: All pages, by path.

    Returns:
        The reason why the link is broken; empty if it is valid.
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
