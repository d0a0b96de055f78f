"""The real servers, and the table of what they made of trains."""

import contextlib
import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from servers.nginx import Nginx, find_nginx
from servers.real import find, started

from benchmarks.relay import relayed
from benchmarks.server import Server
from pulpcore.plugin.download.futures.http.pipeline import HttpLine
from pulpcore.plugin.download.futures.http.wire.train import Train

ROUND_TRIP = 0.02
LARGE = "large"
LIMIT = "limit_req_zone $binary_remote_addr zone=requests:1m rate=300r/s;"

TABLE = pytest.StashKey[list[list[object]]]()
TITLES = ["server", "pipeline", "seconds", "trains", "depth", "broken", "unfit", "off", "Errors"]


class Kind(NamedTuple):
    """A server, and what it is expected to make of trains.

    Attributes:
        name: Its name.
        program: The program that must be installed.
        server, http: Directives of nginx's.
        origin: Whether it asks another server, which is an nginx.
        depth: The depth that trains must have reached with ``pipeline=8``.
        refuses: It refuses some requests, which are sent again later.
        ranges: It answers Range.
    """

    name: str
    program: str
    server: str = ""
    http: str = ""
    origin: bool = False
    depth: int = 8
    refuses: bool = False
    ranges: bool = True


KINDS = [
    Kind("nginx", "nginx"),
    Kind("nginx, 50 requests", "nginx", "keepalive_requests 50;"),
    Kind("nginx, 10 requests", "nginx", "keepalive_requests 10;", depth=2),
    Kind("nginx that delays", "nginx", "limit_req zone=requests burst=1000;", LIMIT),
    Kind(
        *("nginx that refuses", "nginx", "limit_req zone=requests burst=20 nodelay;", LIMIT),
        refuses=True,
        depth=2,
    ),
    Kind("apache", "apache2"),
    Kind("apache, 10 requests", "apache2", depth=2),
    Kind("lighttpd", "lighttpd"),
    Kind("caddy", "caddy"),
    Kind("varnish", "varnishd", origin=True),
    Kind("haproxy", "haproxy", origin=True),
    Kind("squid", "squid", origin=True),
    Kind("squid as a forward proxy", "squid", origin=True, depth=1),
    Kind("http.server", "python3", ranges=False),
    Kind("http.server by HTTP/1.0", "python3", depth=1, ranges=False),
    Kind("node", "node", ranges=False),
]


class Front(NamedTuple):
    """A server that runs.

    Attributes:
        kind: What it is.
        base: The URL of its files, without a slash at the end.
        port: The port to connect to.
        proxy: The URL of the proxy; None to ask the server itself.
        far: The same through a relay that adds a round trip.
    """

    kind: Kind
    base: str
    port: int
    proxy: str | None = None
    far: "Front | None" = None

    def through(self, port: int) -> "Front":
        """Return how to reach it by another port, which leads to its own."""
        url = f"http://127.0.0.1:{port}"
        if self.proxy is not None:
            return self._replace(proxy=url, port=port)
        return self._replace(base=url, port=port)


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    """A folder that all users may enter: some servers don't run as root."""
    with tempfile.TemporaryDirectory(prefix="servers-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@pytest.fixture(scope="session")
def files(folder: Path) -> dict[str, bytes]:
    """The content of each file by its name: 300 small ones, and a large one."""
    chosen = random.Random(3)
    content = {}
    for number in range(300):
        size = int(chosen.choice([10, 1000, 20_000]) ** chosen.random())
        size = {20: 0, 29: 200_000}.get(number % 30, size)
        content[f"{number}.bin"] = chosen.randbytes(size)
    content[LARGE] = chosen.randbytes(6 << 20)
    site = folder / "site"
    site.mkdir(mode=0o755)
    for name, data in content.items():
        (site / name).write_bytes(data)
        (site / name).chmod(0o644)
        # A server may call a validator weak as long as the file is new.
        os.utime(site / name, (1_600_000_000, 1_600_000_000))
    return content


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.name)
def front(request: Any, folder: Path, files: dict[str, bytes]) -> Iterator[Front]:
    """Start a server, and a relay in front of it."""
    kind = request.param
    if (find_nginx() if kind.origin else True) is None or find(kind.program) is None:
        missing = f"{kind.program} isn't installed, or the nginx behind it: tests/servers/install"
        if os.environ.get("SERVERS_REQUIRED"):
            pytest.fail(missing)
        pytest.skip(missing)
    site = folder / "site"
    with contextlib.ExitStack() as stack:

        def own() -> Path:
            name = stack.enter_context(tempfile.TemporaryDirectory(dir=folder))
            Path(name).chmod(0o755)
            return Path(name)

        if kind.program == "nginx":
            port = stack.enter_context(Nginx(site, own(), kind.server, kind.http)).port
        else:
            origin = stack.enter_context(Nginx(site, own())).port if kind.origin else 0
            port = stack.enter_context(started(kind.name, site, own(), origin)).port
        url = f"http://127.0.0.1:{port}"
        near = Front(kind, url, port)
        if kind.name == "squid as a forward proxy":
            near = near._replace(base=f"http://127.0.0.1:{origin}", proxy=url)
        relay = stack.enter_context(relayed(Server(url, kind.name), ROUND_TRIP, folder))
        yield near._replace(far=near.through(int(relay.base.rpartition(":")[2])))


class Trains:
    """What came of the trains of a test.

    Attributes:
        depths: How many requests each had.
        broken: How many the server ended before the last reply.
        unfit: How many replies of them didn't count.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Watch all trains from now on."""
        self.depths: list[int] = []
        self.broken = self.unfit = 0
        self.is_off = False
        send, close, receive = Train.send, HttpLine.close, HttpLine.receive

        def sending(train: Train, heads: Any, timeout: Any) -> None:
            self.depths.append(len(heads))
            send(train, heads, timeout)

        def receiving(line: HttpLine) -> Any:
            left = line._train.left
            reply = receive(line)
            self.unfit += reply is None and line._train.left < left
            return reply

        def closing(line: HttpLine) -> None:
            self.broken += line._train.ended
            close(line)
            self.is_off |= line._health.is_off

        monkeypatch.setattr(Train, "send", sending)
        monkeypatch.setattr(HttpLine, "receive", receiving)
        monkeypatch.setattr(HttpLine, "close", closing)

    @property
    def depth(self) -> int:
        """The most requests that were sent together."""
        return max(self.depths, default=1)


@pytest.fixture
def trains(monkeypatch: pytest.MonkeyPatch) -> Trains:
    """Watch the trains of a test."""
    return Trains(monkeypatch)


def pytest_configure(config: pytest.Config) -> None:
    """Make the table."""
    config.stash[TABLE] = []


@pytest.fixture
def noted(request: pytest.FixtureRequest) -> Any:
    """Return a function that adds a line to the table."""
    return request.config.stash[TABLE].append


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the table of what ran."""
    kinds = [kind.name for kind in KINDS]
    table = sorted(config.stash[TABLE], key=lambda row: (kinds.index(row[0]), str(row[1])))
    if table:
        terminalreporter.section("servers")
        for row in [TITLES, *table]:
            cells = [f"{each:.2f}" if isinstance(each, float) else str(each) for each in row]
            terminalreporter.line(f"{cells[0]:26}" + "".join(f"{cell:>10}" for cell in cells[1:]))
