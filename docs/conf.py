"""Sphinx configuration."""

import importlib.metadata
import inspect
import re
from typing import Any

from sphinx.application import Sphinx

project = "pulpcore-futures"
author = "the authors of pulpcore-futures"
copyright = author

try:
    release = importlib.metadata.version("pulpcore-futures")
except importlib.metadata.PackageNotFoundError:
    # The package isn't installed; Sphinx reads it from the source tree.
    release = ""

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon"]
nitpicky = True
# Types of other projects. Linking to their documentation would need a network during the build.
nitpick_ignore = [
    ("py:class", "hashlib.HASH"),
    ("py:class", "os.PathLike"),
    ("py:class", "requests.Response"),
    ("py:class", "timedelta"),
    ("py:class", "urllib3.util.Retry"),
]

autodoc_member_order = "bysource"
autodoc_typehints = "none"

# Each code block names its language. Blocks without a language are plain text.
highlight_language = "none"

# Hosts that exist only in examples. docs/check_links.py checks the links within the documentation.
linkcheck_ignore = [r"https?://(\w+\.)?example\.org", r"http://127\.0\.0\.1"]
linkcheck_timeout = 20

html_theme = "furo"
# Furo's default dark style underlines names, so that they look like links.
pygments_dark_style = "a11y-high-contrast-dark"
html_title = f"{project} {release}".strip()
html_show_sourcelink = False
html_copy_source = False
html_static_path = ["pages.css"]
html_css_files = ["pages.css"]
# The table of contents of the reference shows "build()" below "Factory", not "Factory.build()".
toc_object_entries_show_parents = "hide"


def arguments_first(
    app: Sphinx, what: str, name: str, obj: object, options: Any, lines: list[str]
) -> None:
    """Insert the sections of __init__'s docstring (arguments) before the class's "Attributes"."""
    init = vars(obj).get("__init__") if inspect.isclass(obj) else None
    if getattr(init, "__doc__", None) and not options.class_doc_from:
        _, _, sections = inspect.cleandoc(init.__doc__).partition("\n\n")
        place = lines.index("Attributes:") if "Attributes:" in lines else len(lines)
        lines[place:place] = [*sections.splitlines(), ""]


def types_beside_names(
    app: Sphinx, what: str, name: str, obj: object, options: Any, lines: list[str]
) -> None:
    """Move the type of an attribute from below its description to below its name."""
    attribute = r"^(\.\. attribute:: \w+\n)((?:\n|   .*\n)*?)   :type: (.*)$"
    text = re.sub(attribute, r"\1   :type: \3\n\2", "\n".join(lines), flags=re.MULTILINE)
    lines[:] = text.split("\n")


def setup(app: Sphinx) -> None:
    """Register the docstring filters: one before napoleon (priority 500), one after it."""
    app.connect("autodoc-process-docstring", arguments_first, priority=400)
    app.connect("autodoc-process-docstring", types_beside_names, priority=600)
