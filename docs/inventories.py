"""Write small inventories of other projects' documentation, for links to it.

A complete inventory has thousands of names, and reading it would need a network during the build.
So ``docs/inventories`` has the few names that these pages use. To link to another name, add it here
with the page that the project's own inventory gives for it, and run ``python docs/inventories.py``.
"""

import zlib
from pathlib import Path

FOLDER = Path(__file__).parent / "inventories"

# By project, the kind of an object and its page: the names.
PROJECTS = {
    "python": {
        ("class", "library/collections.abc.html"): [
            f"collections.abc.{name}"
            for name in (
                *("AsyncIterable", "AsyncIterator", "Awaitable", "Callable", "Hashable"),
                *("Iterable", "Iterator", "Mapping", "MutableMapping", "Sequence"),
            )
        ],
        ("class", "library/concurrent.futures.html"): ["concurrent.futures.Executor"],
        ("class", "library/datetime.html"): ["datetime.timedelta"],
        ("class", "library/functions.html"): ["bool", "float", "int", "object", "type"],
        ("class", "library/os.html"): ["os.PathLike"],
        ("class", "library/ssl.html"): ["ssl.SSLContext"],
        ("class", "library/stdtypes.html"): [
            *("bytearray", "bytes", "dict", "list", "memoryview", "str", "tuple"),
        ],
        ("class", "library/threading.html"): ["threading.local"],
        ("class", "library/typing.html"): ["typing.IO"],
        ("data", "library/constants.html"): ["None"],
        ("data", "library/typing.html"): ["typing.Any", "typing.Self"],
        ("exception", "library/asyncio-exceptions.html"): ["asyncio.CancelledError"],
        ("exception", "library/exceptions.html"): [
            *("AttributeError", "BaseException", "Exception", "ImportError", "KeyboardInterrupt"),
            *("LookupError", "OSError", "RuntimeError", "StopIteration", "TypeError", "ValueError"),
        ],
    },
    "requests": {
        ("class", "api/"): [
            *("requests.PreparedRequest", "requests.Response", "requests.Session"),
            "requests.auth.AuthBase",
        ],
        # Where the class is defined.
        ("class", "api/#requests.PreparedRequest"): ["requests.models.PreparedRequest"],
        ("class", "api/#requests.Session"): ["requests.sessions.Session"],
    },
    "urllib3": {("class", "reference/urllib3.util.html"): ["urllib3.util.Retry"]},
}


def inventory(project: str, objects: dict[tuple[str, str], list[str]]) -> bytes:
    """Return an inventory in Sphinx's format, version 2.

    Args:
        project: The name of the project.
        objects: The names by kind and page. The anchor on the page is the name, unless it has one.
    """
    head = f"# Sphinx inventory version 2\n# Project: {project}\n# Version: \n"
    head += "# The remainder of this file is compressed using zlib.\n"
    lines = [
        f"{name} py:{kind} 1 {page if '#' in page else page + '#$'} -\n"
        for (kind, page), names in objects.items()
        for name in names
    ]
    return head.encode() + zlib.compress("".join(lines).encode(), 9)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for project, objects in PROJECTS.items():
        (FOLDER / f"{project}.inv").write_bytes(inventory(project, objects))
