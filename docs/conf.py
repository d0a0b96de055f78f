"""Sphinx configuration."""

import importlib.metadata
import inspect
import re
from typing import Any

from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer

PACKAGE = "pulpcore.plugin.download.futures"
project = "pulpcore-futures"
author = "the authors of pulpcore-futures"
copyright = author

try:
    release = importlib.metadata.version("pulpcore-futures")
except importlib.metadata.PackageNotFoundError:
    # The package isn't installed; Sphinx reads it from the source tree.
    release = ""

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
nitpicky = True
nitpick_ignore = [
    ("py:class", "hashlib._Hash"),  # the documentation of Python has no such class
    ("py:class", "Attempt"),  # the reference shows some of its methods only
    *(("py:class", name) for name in ("Health", "Request", "Tracing", "Wait")),  # of the engine
    ("py:class", "TracerProvider"),  # of OpenTelemetry, which needn't be installed
    ("py:class", f"{PACKAGE}.context.T"),  # a type variable
]

# inventories.py makes these files: the build needs no network.
intersphinx_mapping = {
    "python": ("https://docs.python.org/3", "inventories/python.inv"),
    "requests": ("https://requests.readthedocs.io/en/latest", "inventories/requests.inv"),
    "urllib3": ("https://urllib3.readthedocs.io/en/stable", "inventories/urllib3.inv"),
}

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
maximum_signature_line_length = 80

# Readers copy programs, and commands without what they print.
copybutton_selector = "div:not(.highlight-output) > div.highlight > pre"
copybutton_prompt_text = "$ "

# Each code block names its language. Blocks without a language are plain text.
highlight_language = "none"

# Hosts that exist only in examples. docs/check_links.py checks the links within the documentation.
linkcheck_ignore = [r"https?://(\w+\.)?example\.org", r"http://127\.0\.0\.1"]
linkcheck_timeout = 20

smartquotes_action = "qe"  # two dashes begin an option

html_theme = "furo"
# Furo's default dark style underlines names, so that they look like links.
pygments_dark_style = "a11y-high-contrast-dark"
html_title = f"{project} {release}".strip()
html_favicon = "favicon.svg"
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


# What stands in the code, and what a reader of a signature knows.
TYPES = {
    "Auth": "Callable[[requests.PreparedRequest], requests.PreparedRequest]",
    "Fetch": "Callable[[], str | tuple[str, float]]",
    r"Downloads\[D_co\]": "Iterable[Download] | AsyncIterable[Download]",
    "D_co": "Download",
    "W_co": "Writer",
    "E": "Event",
    "StrPath": "str | os.PathLike[str]",
    "Executor": "concurrent.futures.Executor",
}


def without_overloads(app: Sphinx) -> None:
    """Have autodoc show each constructor once: overloads are for type checkers."""
    for module in ("download", "file", "ftp.download", "http.download"):
        analyzer = ModuleAnalyzer.for_module(f"{PACKAGE}.{module}")
        analyzer.analyze()
        analyzer.overloads.clear()


def plain_types(
    app: Sphinx, what: str, path: str, obj: object, options: Any, signature: str, returned: str
) -> tuple[str, str] | None:
    """Replace the names of type variables and aliases in a signature."""
    if signature is None:
        return None
    for alias, plain in TYPES.items():
        # Sphinx writes a name with its module, and "~" before it, or alone.
        name = rf"(?<![\w.~])~?(?:{PACKAGE}[\w.]*\.)?{alias}(?!\w)"
        signature, returned = re.sub(name, plain, signature), re.sub(name, plain, returned or "")
    return signature, returned


def links_of_sources(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: object
) -> None:
    """Repair links from a source to the reference.

    The extension viewcode assumes that the reference shows all classes of a module under one path.
    """
    if page.startswith("_modules/") and "body" in context:
        shown = app.env.domains["py"].data["objects"]
        paths = {name.rpartition(".")[2]: name for name in shown}

        def anchor(match: re.Match[str]) -> str:
            return match[0] if match[1] in shown else f'#{paths[match[1].rpartition(".")[2]]}"'

        context["body"] = re.sub(rf'#({PACKAGE}[\w.]+)"', anchor, context["body"])


def setup(app: Sphinx) -> None:
    """Register the filters of signatures and docstrings, before and after napoleon (500)."""
    app.connect("builder-inited", without_overloads)
    app.connect("autodoc-process-signature", plain_types)
    app.connect("html-page-context", links_of_sources, priority=900)
    app.connect("autodoc-process-docstring", arguments_first, priority=400)
    app.connect("autodoc-process-docstring", types_beside_names, priority=600)
