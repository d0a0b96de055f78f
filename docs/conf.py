"""How Sphinx builds the documentation."""

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
    ("py:class", "os.PathLike"),
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

# Hosts that exist in examples only. What leads inside is checked by the build itself.
linkcheck_ignore = [r"https?://(\w+\.)?example\.org", r"http://127\.0\.0\.1"]
linkcheck_timeout = 20

html_theme = "furo"
html_title = f"{project} {release}".strip()
html_show_sourcelink = False
html_copy_source = False
