"""Tests of dial(): address order, time limit, cancellation and the TLS handshake."""

import errno
import itertools
import os
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest
from servers.leaks import open_files

from pulpcore.plugin.download.futures.address import ForbiddenAddress
from pulpcore.plugin.download.futures.net import dial as module
from pulpcore.plugin.download.futures.net.dial import AddressMemory, dial, secure
from pulpcore.plugin.download.futures.net.tls_error import is_cut
from pulpcore.plugin.download.futures.waiting.cancellation import Cancellation, Cancelled, scope

pytestmark = pytest.mark.usefixtures("no_leaks")

Address = tuple[str, int]
HOST = "files.example.test"
# Shorter than the time that one address gets: success within it needed no second address.
AT_ONCE = 0.2


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Close at the end what the test opened."""
    with ExitStack() as opened:
        yield opened


@pytest.fixture
def server(stack: ExitStack) -> socket.socket:
    """Make a listener that accepts when the test says so."""
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    listener.settimeout(20)
    return listener


@pytest.fixture
def silent(stack: ExitStack) -> Callable[[], Address]:
    """Return a function that makes an address that never answers: its listen queue is full."""

    def make() -> Address:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        address: Address = listener.getsockname()
        for _ in range(3):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(address)
        return address

    return make


@pytest.fixture
def refusing(stack: ExitStack) -> Address:
    """Return an address where nobody listens. The port stays taken, so nobody else gets it."""
    sock = stack.enter_context(socket.socket())
    sock.bind(("127.0.0.1", 0))
    address: Address = sock.getsockname()
    return address


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that sets the addresses of a host name."""

    def decide(*addresses: Any, family: int = socket.AF_INET) -> None:
        found = [
            (family if len(address) == 2 else socket.AF_INET6, socket.SOCK_STREAM, 6, "", address)
            for address in addresses
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *unused, **also_unused: found)

    return decide


def test_connects(server: socket.socket) -> None:
    """dial() returns a blocking socket without a time-out, with TCP_NODELAY set."""
    host, port = server.getsockname()
    with dial(host, port, 20) as sock, server.accept()[0] as other:
        assert sock.gettimeout() is None
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        sock.sendall(b"hello")
        assert other.recv(9) == b"hello"


def test_without_limit(server: socket.socket) -> None:
    """A time limit of None lets dial() wait without limit."""
    with dial(*server.getsockname(), None) as sock:
        assert sock.getpeername() == server.getsockname()


class TestAddresses:
    def test_next_while_the_first_is_silent(
        self, server: socket.socket, silent: Callable[[], Address], names: Callable[..., None]
    ) -> None:
        """If an address doesn't answer, dial() tries the next one after 250 ms (RFC 8305)."""
        names(silent(), server.getsockname())
        began = time.monotonic()
        with dial(HOST, 1, 20) as sock:
            assert sock.getpeername() == server.getsockname()
        assert module.DELAY <= time.monotonic() - began < 10

    def test_first_goes_on(
        self, stack: ExitStack, silent: Callable[[], Address], names: Callable[..., None]
    ) -> None:
        """Earlier attempts stay open while dial() tries more addresses. The first answer wins."""
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        first = listener.getsockname()
        waiting = stack.enter_context(socket.create_connection(first))
        names(first, silent())
        # The kernel repeats its SYN after one second. By then the queue has room.
        accept = threading.Timer(0.5, lambda: [sock.close() for sock in listener.accept()[:1]])
        accept.start()
        with dial(HOST, 1, 20) as sock:
            assert sock.getpeername() == first
        accept.join()
        assert waiting.fileno() != -1

    def test_next_at_once_after_a_failure(
        self, server: socket.socket, refusing: Address, names: Callable[..., None]
    ) -> None:
        """If an address refuses, dial() tries the next one at once."""
        names(refusing, server.getsockname())
        with dial(HOST, 1, AT_ONCE) as sock:
            assert sock.getpeername() == server.getsockname()

    def test_families_alternate(
        self, refusing: Address, monkeypatch: pytest.MonkeyPatch, names: Callable[..., None]
    ) -> None:
        """dial() alternates IPv6 and IPv4 from the first address's family on, without repeats."""
        tried = []
        real = socket.socket

        def record(family: int, *rest: Any) -> socket.socket:
            tried.append(family)
            return real(family, *rest)

        four, six = [("127.0.0.1", refusing[1])], [("::1", n, 0, 0) for n in (1, 2, 3)]
        names(*six, *four, *four)
        monkeypatch.setattr(socket, "socket", record)
        with pytest.raises(ConnectionRefusedError):
            dial(HOST, 1, 20)
        assert tried == [socket.AF_INET6, socket.AF_INET, socket.AF_INET6, socket.AF_INET6]

    def test_family_that_is_not_supported(
        self, server: socket.socket, names: Callable[..., None]
    ) -> None:
        """dial() skips an address whose family this machine doesn't support."""
        names(("nowhere", 1), family=12345)
        unsupported = socket.getaddrinfo(HOST, 1)
        names(server.getsockname())
        unsupported += socket.getaddrinfo(HOST, 1)
        with dial(HOST, 1, AT_ONCE) as sock:
            assert sock.getpeername() == server.getsockname()

    def test_name_without_addresses(self, names: Callable[..., None]) -> None:
        """A host name without addresses raises socket.gaierror."""
        names()
        with pytest.raises(socket.gaierror):
            dial(HOST, 1, 20)

    def test_slow_look_up(self, server: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
        """The name look-up doesn't count towards the time limit of dial()."""
        real = socket.getaddrinfo

        def slow(*args: Any) -> Any:
            time.sleep(2 * AT_ONCE)
            return real(*args)

        monkeypatch.setattr(socket, "getaddrinfo", slow)
        with dial(*server.getsockname(), AT_ONCE) as sock:
            assert sock.getpeername() == server.getsockname()


class TestFailures:
    def test_time_limit(self, silent: Callable[[], Address], names: Callable[..., None]) -> None:
        """One time limit bounds all connection attempts of dial() together."""
        names(*(silent() for _ in range(3)))
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            dial(HOST, 1, 0.4)
        assert 0.4 <= time.monotonic() - began < 10

    def test_refused(self, refusing: Address) -> None:
        """If nobody listens, dial() raises the ConnectionRefusedError of the system."""
        with pytest.raises(ConnectionRefusedError, match="refused"):
            dial(*refusing, 20)

    def test_connect_that_cannot_begin(
        self, refusing: Address, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A connect() that fails with EAGAIN isn't taken for a connection in progress."""
        monkeypatch.setattr(socket.socket, "connect_ex", lambda *unused: errno.EAGAIN)
        with pytest.raises(BlockingIOError):
            dial(*refusing, 20)

    @pytest.mark.parametrize("turn", [1, -1])
    def test_failure_that_says_most(
        self, refusing: Address, names: Callable[..., None], turn: int
    ) -> None:
        """If one address family is unreachable, dial() raises the error of the other family."""
        # The zone of a link-local address that is no interface.
        names(*[("fe80::1", 9, 0, 9999), refusing][::turn])
        with pytest.raises(ConnectionRefusedError):
            dial(HOST, 1, 20)

    @pytest.mark.parametrize("turn", [1, -1])
    def test_descriptors_used_up(
        self,
        refusing: Address,
        names: Callable[..., None],
        monkeypatch: pytest.MonkeyPatch,
        turn: int,
    ) -> None:
        """If descriptors run out, dial() raises that error rather than other addresses' errors."""
        real = socket.socket
        turns = iter([True, False][::turn])

        def used_up(*args: Any) -> socket.socket:
            if next(turns):
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return real(*args)

        names(("127.0.0.1", 1), refusing)
        monkeypatch.setattr(socket, "socket", used_up)
        with pytest.raises(OSError, match="open files"):
            dial(HOST, 1, 20)

    def test_not_public(self, server: socket.socket) -> None:
        """With public_only, dial() closes a connection to a private address without sending."""
        with pytest.raises(ForbiddenAddress):
            dial(*server.getsockname(), 20, public_only=True)
        with server.accept()[0] as other:
            other.settimeout(20)
            assert other.recv(9) == b""


class TestMemory:
    def test_silent_address_is_tried_last(
        self, server: socket.socket, silent: Callable[[], Address], names: Callable[..., None]
    ) -> None:
        """An address that didn't answer within 250 ms is tried last by the next dial()."""
        memory, dead = AddressMemory(), silent()
        names(dead, server.getsockname())
        for limit in (20, AT_ONCE):
            with dial(HOST, 1, limit, memory=memory) as sock:
                assert sock.getpeername() == server.getsockname()
        assert memory.is_silent(dead)
        assert not memory.is_silent(server.getsockname())

    def test_time_limit(self, silent: Callable[[], Address], names: Callable[..., None]) -> None:
        """Only an address that had its full 250 ms is remembered as silent."""
        memory, first, second = AddressMemory(), silent(), silent()
        names(first, second)
        with pytest.raises(TimeoutError):
            dial(HOST, 1, module.DELAY * 1.3, memory=memory)
        assert memory.is_silent(first)
        assert not memory.is_silent(second)

    def test_answers_again(self, server: socket.socket) -> None:
        """An address that answers again is no longer remembered as silent."""
        memory = AddressMemory()
        memory.note(server.getsockname(), answered=False)
        dial(*server.getsockname(), 20, memory=memory).close()
        assert not memory.is_silent(server.getsockname())

    def test_is_bounded(self) -> None:
        """The memory of silent addresses doesn't grow with the number of hosts."""
        memory = AddressMemory()
        for port in range(3 * memory.MOST):
            memory.note(("192.0.2.1", port), answered=False)
        known = sum(memory.is_silent(("192.0.2.1", port)) for port in range(3 * memory.MOST))
        assert 0 < known <= memory.MOST


class AtStep(Cancellation):
    """A cancellation token that is cancelled at a given step of the work it belongs to."""

    def __init__(self, step: str) -> None:
        super().__init__()
        self._step = step

    def watch(self, sock: socket.socket) -> None:
        """Watch, and cancel if this is the step."""
        super().watch(sock)
        if self._step == "watch":
            self.cancel("enough")

    def unwatch(self, sock: socket.socket) -> None:
        """Cancel if this is the step, then stop watching."""
        if self._step == "unwatch":
            self.cancel("enough")
        super().unwatch(sock)


class TestCancellation:
    @pytest.mark.parametrize("step", ["watch", "unwatch"])
    def test_between_the_steps(self, server: socket.socket, step: str) -> None:
        """A cancellation just before the wait, or just after connecting, isn't missed."""
        with scope(AtStep(step)), pytest.raises(Cancelled, match="enough"):
            dial(*server.getsockname(), 20)

    def test_before(self, refusing: Address) -> None:
        """dial() opens no socket if its token was cancelled before."""
        token = Cancellation()
        token.cancel("enough")
        with scope(token), pytest.raises(Cancelled, match="enough"):
            dial(*refusing, 20)

    def test_while_connecting(
        self, silent: Callable[[], Address], names: Callable[..., None]
    ) -> None:
        """A cancellation ends dial() while it waits for silent addresses, and no other is tried."""
        names(silent(), silent())
        token = Cancellation()
        canceller = threading.Timer(0.4, token.cancel, ["enough"])
        canceller.start()
        began = time.monotonic()
        with scope(token), pytest.raises(Cancelled, match="enough"):
            dial(HOST, 1, None)
        assert time.monotonic() - began < 10
        canceller.join()

    def test_of_another_time(self, server: socket.socket, refusing: Address) -> None:
        """Cancelling a token later doesn't shut down a connection that was made under it."""
        token = Cancellation()
        with scope(token):
            sock = dial(*server.getsockname(), 20)
            with pytest.raises(ConnectionRefusedError):
                dial(*refusing, 20)
        with sock, server.accept()[0] as other:
            token.cancel("enough")
            sock.sendall(b"hello")
            assert other.recv(9) == b"hello"


class TestInterrupt:
    """A KeyboardInterrupt at each call within dial(), in one run for each."""

    @pytest.mark.filterwarnings("ignore::ResourceWarning")
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    def test_nothing_is_left(
        self,
        server: socket.socket,
        refusing: Address,
        silent: Callable[[], Address],
        names: Callable[..., None],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A KeyboardInterrupt anywhere in dial() leaves no open socket, nor a watched one."""
        monkeypatch.setattr(module, "DELAY", 0.01)
        names(refusing, silent(), server.getsockname())
        before = open_files()
        for step in itertools.count():
            token = Cancellation()
            if self._interrupted(token, step):
                assert open_files() == before, step
            else:
                break
        assert step > 30

    def _interrupted(self, token: Cancellation, step: int) -> bool:
        """Dial with an interrupt at one call or return. Return whether there were that many."""
        left = step

        def interrupt(frame: Any, event: str, arg: Any) -> None:
            nonlocal left
            if frame.f_code.co_filename == module.__file__:
                left -= 1
                if left == -1:
                    raise KeyboardInterrupt

        with scope(token):
            sys.setprofile(interrupt)
            try:
                dial(HOST, 1, 20, memory=AddressMemory()).close()
            except KeyboardInterrupt:
                return True
            finally:
                sys.setprofile(None)
        return left < 0


class TestTls:
    @pytest.fixture
    def pair(self) -> Iterator[tuple[socket.socket, socket.socket]]:
        """Make two sockets that are connected with each other."""
        one, two = socket.socketpair()
        with one, two:
            two.settimeout(20)
            yield one, two

    def serve(self, sock: socket.socket, context: ssl.SSLContext) -> threading.Thread:
        """Do the server's handshake in a thread, then end the connection without close_notify."""

        def answer() -> None:
            # A refused handshake closes the socket, too.
            with suppress(OSError):
                context.wrap_socket(sock, server_side=True).close()

        thread = threading.Thread(target=answer)
        thread.start()
        return thread

    @pytest.mark.parametrize("name", ["localhost", "localhost.", "127.0.0.1", "127.0.0.1%lo"])
    def test_handshake(self, pair: Any, tls: Any, name: str) -> None:
        """The certificate must match the host name without its trailing dot or IPv6 zone."""
        ours, theirs = pair
        thread = self.serve(theirs, tls.server())
        context = ssl.create_default_context(cafile=tls.ca)
        # Some builds of Python set this option, and the library clears it.
        context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
        with secure(ours, context, name, 20) as secured:
            thread.join()
            assert secured.gettimeout() == 20
            # A cut connection differs from one that was closed properly.
            with pytest.raises(ssl.SSLError) as caught:
                secured.recv(9)
        # Python 3.11.2 raises no SSLEOFError for this, only its base class.
        assert is_cut(caught.value)

    def test_not_trusted(self, pair: Any, tls: Any) -> None:
        """secure() closes the connection if the certificate isn't trusted."""
        ours, theirs = pair
        thread = self.serve(theirs, tls.server())
        with pytest.raises(ssl.SSLCertVerificationError):
            secure(ours, ssl.create_default_context(cafile=tls.other_ca), "localhost", 20)
        thread.join()
        assert ours.fileno() == -1

    def test_host_that_is_none(self, pair: Any) -> None:
        """secure() closes the connection if the host name is invalid for TLS."""
        ours, _ = pair
        with pytest.raises(ValueError, match="server_hostname"):
            secure(ours, ssl.create_default_context(), "", 20)
        assert ours.fileno() == -1

    def test_time_limit(self, pair: Any) -> None:
        """secure() gives up when a silent server exceeds its time limit."""
        with pytest.raises(TimeoutError):
            secure(pair[0], ssl.create_default_context(), "localhost", 0.1)

    @pytest.mark.parametrize("step", ["watch", "later"])
    def test_cancellation(self, pair: Any, step: str) -> None:
        """A cancellation ends the TLS handshake at once."""
        token = AtStep(step)
        canceller = threading.Timer(0.2, token.cancel, ["enough"])
        canceller.start()
        with scope(token), pytest.raises(Cancelled, match="enough"):
            secure(pair[0], ssl.create_default_context(), "localhost", None)
        canceller.join()
