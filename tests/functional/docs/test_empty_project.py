"""The docstrings suit a Sphinx project of somebody else, whichever extensions it has."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pulpcore.plugin.download import futures
from pulpcore.plugin.download.futures import context, event

MODULE = "pulpcore.plugin.download.futures"
# What the API's documentation of 2017 shows, and those classes that it shows with __call__.
CALLED = ("Download", "HttpDownload", "FileDownload", "DigestValidation")
ERRORS = ("DownloadError", "DownloadFailed", "NotAuthorized", "NotFound", "ValidationError")
COMPLETE = [
    *(getattr(futures, name) for name in (*CALLED, "Validation", "SizeValidation", "Factory")),
    *(futures.Writer, futures.FileWriter, futures.BufferWriter),
    *(futures.SSL, futures.User, futures.Timeout),
    *(event.Event, event.Prepared, event.Sent, event.Replied, event.Succeeded, event.Failed),
    *(event.Error, event.Fetched, context.Context, context.Cache),
]


def page() -> str:
    """Return a page with the directives of the API's documentation of 2017."""
    lines = ["API", "===", "", f".. automodule:: {MODULE}", ""]

    def add(name: str, *options: str) -> None:
        lines.extend([f".. autoclass:: {MODULE}.{name}", *(f"    {o}" for o in options), ""])

    for cls in COMPLETE:
        called = [":special-members: __call__"] * (cls.__name__ in CALLED)
        submodule = {event: "event.", context: "context."}.get(sys.modules[cls.__module__], "")
        add(f"{submodule}{cls.__name__}", ":members:", *called)
    add("Batch", ":members: download, shutdown", ":special-members: __call__")
    for name in ERRORS:
        add(name, ":show-inheritance:", ":members: download, reason")
    return "\n".join(lines)


def build(folder: Path, extensions: list[str]) -> str:
    """Build the page in an empty project; a warning is an error. Return its text."""
    (folder / "index.rst").write_text(page())
    (folder / "conf.py").write_text(f"extensions = {extensions}\n")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "text"]
    run = subprocess.run(
        [*command, str(folder), str(folder / "out")],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return (folder / "out" / "index.txt").read_text()


@pytest.mark.parametrize("napoleon", [False, True])
def test_page(tmp_path: Path, napoleon: bool) -> None:
    """The page builds without a warning, with napoleon and without it, and shows every member."""
    text = build(tmp_path, ["sphinx.ext.autodoc", *["sphinx.ext.napoleon"] * napoleon])
    shown = {part.partition("(")[0].rpartition(".")[2]: part for part in text.split("\nclass ")[1:]}
    for cls in [*COMPLETE, futures.Batch, *(getattr(futures, name) for name in ERRORS)]:
        # The page of a class doesn't repeat what its base class has.
        inherited = {name for base in cls.__mro__[1:] for name in vars(base)}
        members = {name for name in vars(cls) if not name.startswith("_")} - inherited
        if cls is futures.Batch:
            members = {"downloads", "concurrent", "backlog", "context", "download", "shutdown"}
        for name in members:
            # Before a property or a static method stands that it is one.
            member = rf"^ +(?:property |static |classmethod )?{name}\b"
            assert re.search(member, shown[cls.__name__], re.MULTILINE), name
    if not napoleon:
        # Each entry of a section is a paragraph of its own, below its name.
        assert "\n      url (str):\n         The URL of the content." in text
