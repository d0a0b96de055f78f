"""How Sphinx builds the documentation."""

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
    # Built from a source tree that isn't installed.
    release = ""

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon"]
nitpicky = True
# Types of others, whose pages aren't linked: building must not need a network.
nitpick_ignore = [
    ("py:class", "hashlib.HASH"),
    ("py:class", "os.PathLike"),
    ("py:class", "requests.Response"),
    ("py:class", "timedelta"),
    ("py:class", "urllib3.util.Retry"),
]

autodoc_member_order = "bysource"
autodoc_typehints = "none"

# A block says which language it is in; one that doesn't is plain text.
highlight_language = "none"

# Hosts that exist in examples only. What leads inside is checked by the build itself.
linkcheck_ignore = [r"https?://(\w+\.)?example\.org", r"http://127\.0\.0\.1"]
linkcheck_timeout = 20

html_theme = "furo"
# Furo's own is like this by day; by night it has names underlined as if they were links.
pygments_dark_style = "a11y-high-contrast-dark"
html_title = f"{project} {release}".strip()
html_show_sourcelink = False
html_copy_source = False
html_static_path = ["pages.css"]
html_css_files = ["pages.css"]
# The contents beside the API page: "build()", and not "Factory.build()" below "Factory".
toc_object_entries_show_parents = "hide"


def arguments_first(
    app: Sphinx, what: str, name: str, obj: object, options: Any, lines: list[str]
) -> None:
    """Have a class say what it takes, as its __init__ has it, before the attributes it has."""
    init = vars(obj).get("__init__") if inspect.isclass(obj) else None
    if getattr(init, "__doc__", None) and not options.class_doc_from:
        _, _, sections = inspect.cleandoc(init.__doc__).partition("\n\n")
        place = lines.index("Attributes:") if "Attributes:" in lines else len(lines)
        lines[place:place] = [*sections.splitlines(), ""]


def types_beside_names(
    app: Sphinx, what: str, name: str, obj: object, options: Any, lines: list[str]
) -> None:
    """Put the type of an attribute beside its name, and not below what is said of it."""
    attribute = r"^(\.\. attribute:: \w+\n)((?:\n|   .*\n)*?)   :type: (.*)$"
    text = re.sub(attribute, r"\1   :type: \3\n\2", "\n".join(lines), flags=re.MULTILINE)
    lines[:] = text.split("\n")


def setup(app: Sphinx) -> None:
    """Have docstrings arranged: napoleon, which makes directives of them, has priority 500."""
    app.connect("autodoc-process-docstring", arguments_first, priority=400)
    app.connect("autodoc-process-docstring", types_beside_names, priority=600)
