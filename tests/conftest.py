"""Fixtures that every test may use, and two that every test gets."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from servers.files import FileServer
from servers.leaks import open_files, threads_left
from servers.proxy import Proxy
from servers.raw import RawServer
from servers.tls import Tls

# Every run has the same examples and no deadline for one, because a machine may be slow.
# `--hypothesis-profile=random` draws random ones.
settings.register_profile(
    "random", deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("tests", settings.get_profile("random"), derandomize=True)
settings.load_profile("tests")

# The environment variables that affect a download.
VARIABLES = [
    *(
        case
        for name in ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")
        for case in (name, name.upper())
    ),
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NETRC",
]


@pytest.fixture(autouse=True)
def nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves a thread alive; with `no_leaks`, a file descriptor open too."""
    files = "no_leaks" in request.fixturenames
    threads_before = threading.enumerate()
    files_before = open_files() if files else {}
    yield
    left = threads_left(threads_before)
    assert not left, "threads left alive:\n" + "\n".join(left)
    if files:
        opened = open_files().items() - files_before.items()
        assert not opened, f"file descriptors left open: {sorted(opened)}"


@pytest.fixture
def no_leaks() -> None:
    """Make `nothing_left` check file descriptors, too.

    It does so, because it begins before the test's servers do, and ends after them.
    """


@pytest.fixture(autouse=True)
def clean_environment(
    nothing_left: None, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Remove the user's proxy, CA and netrc settings. HOME is an empty folder."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture
def from_terminal() -> Iterator[None]:
    """Give signals the effect that they have on a program started from a terminal.

    A test run in the background, or by nohup, ignores some of them, and child processes
    inherit that.
    """
    before = {
        number: signal.signal(number, handler)
        for number, handler in [
            (signal.SIGINT, signal.default_int_handler),
            (signal.SIGTERM, signal.SIG_DFL),
            (signal.SIGHUP, signal.SIG_DFL),
        ]
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def running() -> Iterator[Callable[..., Any]]:
    """Return `running(cls, *args, **options)`: a server that closes when the test ends."""
    with ExitStack() as stack:
        yield lambda cls, *args, **options: stack.enter_context(cls(*args, **options))


@pytest.fixture
def raw_server(running: Callable[..., Any]) -> Callable[..., RawServer]:
    """`raw_server(scripts, tls=None)` starts a `RawServer`."""
    return partial(running, RawServer)


@pytest.fixture
def file_server(running: Callable[..., Any]) -> Callable[..., FileServer]:
    """`file_server(files, user=None, faults=None, tls=None, record=True)` starts a `FileServer`."""
    return partial(running, FileServer)


@pytest.fixture
def proxy(running: Callable[..., Any]) -> Callable[..., Proxy]:
    """`proxy(user=None, tls=None, refuse_connect=False, hosts=None)` starts a `Proxy`."""
    return partial(running, Proxy)


@pytest.fixture
def ftp_server(running: Callable[..., Any]) -> Callable[..., Any]:
    """`ftp_server(folder, users=None, cuts=None, security=None)` starts an `FtpServer`."""
    from servers.ftp import FtpServer  # few tests need pyftpdlib

    return partial(running, FtpServer)


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """Make the certificates of `servers.tls`."""
    return Tls(tmp_path_factory.mktemp("tls"))
