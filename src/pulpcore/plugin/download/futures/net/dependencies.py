"""The undocumented names of our dependencies that this package uses.

Importing this module checks that all of them exist. So with an incompatible version the import
fails with a clear ImportError, and not a later download with an AttributeError.
"""

from __future__ import annotations

import inspect
import pkgutil

import urllib3

NAMES = {
    "aiohttp.TCPConnector._ssl": "the TLS settings of a session that pulpcore made",
    "concurrent.futures.ProcessPoolExecutor._broken": "tells that a pool broke while it got a "
    "chunk, which it may have forgotten",
    "concurrent.futures.ProcessPoolExecutor._call_queue": "a broken pool may wait "
    "for a reader of it",
    "concurrent.futures.ProcessPoolExecutor._executor_manager_thread": "tells whether "
    "the pool waits",
    "concurrent.futures.ProcessPoolExecutor._processes": "the processes that a pool waits for",
    "concurrent.futures.ProcessPoolExecutor._result_queue": "a pool may wait "
    "for the rest of a result, whose writer was killed",
    "concurrent.futures.ProcessPoolExecutor._max_workers": "the number of workers; without it a "
    "batch takes it to be four",
    "distributed.cfexecutor.ClientExecutor._client": "counts the workers of a cluster, which come "
    "and go; without it a batch takes them for processes",
    "ftplib.FTP.file": "reads replies from a connection of our own",
    "ftplib.FTP.getline": "overridden to bound the size of a reply",
    "ftplib.FTP.getresp": "overridden so that a cancellation wakes its reader",
    "ftplib.FTP.host": "makepasv() gives the host of the control connection",
    "ftplib.FTP.makepasv": "asks for a data connection, which we make by ourselves",
    "ftplib.FTP.maxline": "the longest line of a reply",
    "ftplib.FTP.putline": "overridden to send names that are no UTF-8",
    "ftplib.FTP.sock": "a connection of our own",
    "ftplib.FTP.welcome": "the first reply",
    "multiprocessing.queues.Queue._reader": "closed in a broken pool, so that its writer "
    "gets an error",
    "multiprocessing.queues.Queue._writer": "tells whether the queue of a broken pool is full",
    "multiprocessing.queues.SimpleQueue._writer": "a pool that waits for the rest of a result "
    "gets something else from it",
    "requests.cookies.MockRequest": "gives a cookie jar the URL of a request",
    "requests.cookies.MockResponse": "gives a cookie jar the fields of a reply, a bounded number",
    "requests.cookies.extract_cookies_to_jar": "fills `reply.cookies` as requests does",
    "requests.utils.get_environ_proxies": "finds proxies as requests does, with no_proxy",
    "requests.utils.select_proxy": "chooses a proxy by scheme and host as requests does",
    "socks.socksocket._negotiate_SOCKS4": "connect() would dial the proxy by itself: one address, "
    "and past any cancellation",
    "socks.socksocket._negotiate_SOCKS5": "the same",
    "ssl.SSL_ERROR_EOF": "the number of an SSLEOFError, for one of our own",
    "sys._is_gil_enabled": "tells whether Python has its lock; without it, which is before 3.13, "
    "a batch takes it to have one",
    "threading._register_atexit": "ends batches that were left open, before concurrent.futures "
    "waits for their chunks; without it the program waits, too",
    "urllib3.HTTPResponse(sock_shutdown)": "lets `reply.raw.shutdown()` reach our connection",
    "urllib3.HTTPResponse(version_string)": "`reply.raw.version_string` is that of the reply",
}
"""The names, with a parameter in parentheses, and the purpose of each."""

# Of libraries that may be missing, and attributes of objects, which a class doesn't show.
_OPTIONAL = ("aiohttp.", "concurrent.", "distributed.", "multiprocessing.", "socks.", "sys.")
# urllib3-future installs itself as urllib3. The third number of its versions is 900 or more.
_FORK = 900


def missing(package: str) -> list[str]:
    """Return the names that don't exist in the installed versions.

    Args:
        package: The prefix of the names, such as ``socks.``; '' for those that are always needed.
    """
    names = [
        name
        for name in NAMES
        if name.startswith(package or "") and (package or not name.startswith(_OPTIONAL))
    ]
    return [name for name in names if not _exists(name)]


def check() -> None:
    """Check that the installed dependencies are compatible.

    Raises:
        ImportError: They aren't. The message says what to install.
    """
    version = getattr(urllib3, "__version__", "")
    *_, patch = version.split(".")
    if patch.isdigit() and int(patch) >= _FORK:
        raise ImportError(
            f"the module urllib3 is not urllib3 but a fork that takes its name (version "
            f"{version}): uninstall urllib3-future, and install urllib3 again"
        )
    if absent := missing(""):
        raise ImportError(
            f"pulpcore-futures needs {', '.join(absent)}, which the installed version lacks: "
            "install versions of requests and urllib3 that pulpcore-futures allows"
        )


def _exists(name: str) -> bool:
    path, _, parameter = name.removesuffix(")").partition("(")
    try:
        found = pkgutil.resolve_name(path)
    except (ImportError, AttributeError):
        return False
    return not parameter or parameter in inspect.signature(found).parameters


check()
