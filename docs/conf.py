"""How Sphinx builds the documentation: no theme and no extension that doesn't come with it."""

import importlib.metadata

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
    ("py:class", "requests.Response"),
    ("py:class", "timedelta"),
    ("py:class", "urllib3.util.Retry"),
]

autodoc_member_order = "bysource"
# What a class takes is told by the docstring of its __init__.
autoclass_content = "both"
autodoc_typehints = "none"

# A block says which language it is in; one that doesn't is plain text.
highlight_language = "none"

html_theme = "alabaster"
html_theme_options = {
    "description": "Downloads as callables, run by a pool of threads",
    "page_width": "60rem",
    "body_max_width": "none",
    "font_family": "sans-serif",
}
html_sidebars = {"**": ["about.html", "localtoc.html", "navigation.html", "searchbox.html"]}
html_show_sourcelink = False
html_copy_source = False
