"""Opens connections: TCP to the first address of a host that answers, and TLS on top of it.

HTTP and FTP both connect here. It uses no threads: one call starts non-blocking connects and waits
for all of them with one selector.
"""

from __future__ import annotations

import errno
import itertools
import math
import os
import selectors
import socket
import ssl
import time
from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

from ..address import check_peer
from ..context import Context
from ..waiting.cancellation import current, watched
from ..waiting.lock import Process

DELAY = 0.25
"""Head start of an address before the next one is tried in parallel (seconds).

RFC 8305 section 8 calls it the Connection Attempt Delay.
"""

# Not EAGAIN: with that, Linux says that it could not start to connect.
_IN_PROGRESS = (0, errno.EINPROGRESS, errno.EINTR)
# Such an error matters most: with that resource, this address might have answered.
_USED_UP = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
# This machine has no route, or no address, of the family. Any other error says more.
_NO_ROUTE = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.ENETUNREACH, errno.EHOSTUNREACH)


class DialTimeout(TimeoutError):
    """No address of the host answered within the time-out."""


class _Address(NamedTuple):
    """A result of getaddrinfo, without the canonical name."""

    family: int
    kind: int
    protocol: int
    sockaddr: Any


class AddressMemory:
    """The addresses that didn't answer, so that they are tried last.

    It takes no lock, because a signal handler could find it held. It uses only atomic operations of
    its dict.
    """

    MOST = 1024
    """The maximum number of addresses. Beyond it all are forgotten: they only save time."""

    def __init__(self) -> None:
        """Create an empty memory."""
        self._silent: dict[Any, None] = {}

    @classmethod
    def of(cls, context: Context) -> AddressMemory:
        """Return the memory that is shared by all users of a context in this process.

        Args:
            context: The context.
        """
        memory: AddressMemory = context.cache.setdefault((cls, Process.current), cls())
        return memory

    def is_silent(self, sockaddr: Any) -> bool:
        """Return whether an address didn't answer when it was tried last.

        Args:
            sockaddr: The address, as getaddrinfo returns it.
        """
        return sockaddr in self._silent

    def note(self, sockaddr: Any, *, answered: bool) -> None:
        """Record the outcome of a connection attempt.

        Args:
            sockaddr: The address, as getaddrinfo returns it.
            answered: Whether the connection succeeded.
        """
        if answered:
            self._silent.pop(sockaddr, None)
            return
        if len(self._silent) >= self.MOST:
            self._silent.clear()
        self._silent[sockaddr] = None


def dial(
    host: str,
    port: int,
    timeout: float | None,
    *,
    memory: AddressMemory | None = None,
    public_only: bool = False,
    receive_buffer: int | None = None,
) -> socket.socket:
    """Connect to the address of a host that answers first (RFC 8305, "Happy Eyeballs").

    IPv4 and IPv6 addresses alternate, beginning with the family that the system prefers. The next
    address is tried after 250 ms, or at once when an attempt fails. Earlier attempts continue in
    parallel. The current cancellation token (:func:`~..waiting.cancellation.current`) ends the call
    at once, except during the name resolution, which the system can't interrupt.

    Args:
        host: The name or address, an IPv6 address without brackets.
        port: The port.
        timeout: The time-out for all addresses together, without the name resolution (seconds);
            None for no limit.
        memory: The addresses that didn't answer before; they are tried last.
        public_only: Accept only public addresses. The address is checked before a byte is sent.
        receive_buffer: The size of the receive buffer (bytes); None for the system's choice.

    Returns:
        A connected, blocking socket without a time-out, with TCP_NODELAY set.

    Raises:
        socket.gaierror: The name can't be resolved.
        UnicodeError: The name is invalid: a label is empty or too long.
        DialTimeout: No address answered within the time-out.
        ForbiddenAddress: ``public_only`` is set, and the address is not public.
        ConnectionRefusedError: Nothing listens on the port.
        OSError: All addresses failed in other ways. If the errors differ, it is the most
            informative one.
        Cancelled: The current token was cancelled.
    """
    addresses = _resolve(host, port)
    if memory is not None:
        # The sort is stable: the other addresses keep their order.
        addresses.sort(key=lambda address: memory.is_silent(address.sockaddr))
    race = _Race(addresses, memory, receive_buffer)
    try:
        sock = race.run(timeout)
        if public_only:
            check_peer(sock)
        sock.setblocking(True)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        race.release(sock)
        return sock
    finally:
        try:
            race.close()
        finally:
            # A signal handler may have interrupted the first call.
            race.close()


def secure(
    sock: socket.socket,
    tls_context: ssl.SSLContext,
    server_hostname: str,
    timeout: float | None,
    session: ssl.SSLSession | None = None,
) -> ssl.SSLSocket:
    """Do the TLS handshake on a connection.

    The current cancellation token ends it at once.

    Args:
        sock: The connection. It is closed if the handshake fails.
        tls_context: The TLS context.
        server_hostname: The host that the certificate must be valid for, an IPv6 address without
            brackets. The final dot of a name and the zone of an address are removed, since
            certificates don't contain them.
        timeout: The time-out of the whole handshake (seconds); None for no limit.
        session: The TLS session to resume.

    Returns:
        The encrypted connection, with ``timeout`` set. Reading raises an ssl.SSLError for which
        ``is_cut()`` is True if the connection ends without a close_notify.

    Raises:
        ssl.SSLCertVerificationError: The certificate isn't trusted.
        ssl.SSLError: The handshake failed in another way.
        TimeoutError: The handshake took longer than the time-out.
        OSError: The connection failed.
        Cancelled: The current token was cancelled.
    """
    token = current()
    secured: socket.socket = sock
    try:
        sock.settimeout(timeout)
        secured = tls_context.wrap_socket(
            sock,
            server_hostname=server_hostname.partition("%")[0].rstrip("."),
            session=session,
            # Do it below, where the token watches the socket.
            do_handshake_on_connect=False,
            suppress_ragged_eofs=False,
        )
        with watched(secured):
            secured.do_handshake()
        return secured
    except BaseException as error:
        secured.close()
        sock.close()
        if token is not None and isinstance(error, OSError):
            # Cancelling shuts the connection down. Then the error isn't the server's fault.
            token.check()
        raise


def _resolve(host: str, port: int) -> list[_Address]:
    """Resolve a host. The address families alternate in the result (RFC 8305 section 4)."""
    found = socket.getaddrinfo(host, port, socket.AF_UNSPEC, socket.SOCK_STREAM)
    if not found:
        raise socket.gaierror(socket.EAI_NONAME, "the name has no address")
    by_family: dict[int, list[_Address]] = {}
    # getaddrinfo may return an address twice.
    for family, kind, protocol, _, sockaddr in dict.fromkeys(found):
        by_family.setdefault(family, []).append(_Address(family, kind, protocol, sockaddr))
    turns = itertools.chain.from_iterable(itertools.zip_longest(*by_family.values()))
    return [address for address in turns if address is not None]


class _Race:
    """Parallel connection attempts. The first that succeeds wins."""

    def __init__(
        self,
        addresses: Iterable[_Address],
        memory: AddressMemory | None,
        receive_buffer: int | None,
    ) -> None:
        self._addresses = deque(addresses)
        self._receive_buffer = receive_buffer
        self._memory = memory
        self._token = current()
        # Unlike the selector for epoll, it needs no file descriptor of its own.
        self._selector = selectors.PollSelector()
        # The attempts in progress: the address, and when the attempt started.
        self._attempts: dict[socket.socket, tuple[_Address, float]] = {}
        self._errors: list[OSError] = []
        # When to try the next address, even if no attempt has failed (``time.monotonic()``).
        self._next = 0.0

    def run(self, timeout: float | None) -> socket.socket:
        """Try the addresses until one answers. Return its socket, which :meth:`close` still closes.

        Args:
            timeout: The time-out (seconds); None for no limit.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            if self._token is not None:
                # After watch() and before select(): a later cancellation wakes select(). And before
                # the errors are evaluated, because a cancellation causes errors too.
                self._token.check()
            if not self._addresses and not self._attempts:
                break
            now = time.monotonic()
            if now >= deadline:
                self._note_silent()
                raise DialTimeout(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
            if self._addresses and now >= self._next:
                self._start(self._addresses.popleft())
                continue
            until = min(deadline, self._next) if self._addresses else deadline
            winner = self._wait(None if until == math.inf else until - now)
            if winner is not None:
                return winner
        try:
            raise min(self._errors, key=_rank)
        finally:
            # Break a reference cycle, because the error's traceback refers to this frame.
            self._errors.clear()

    def release(self, winner: socket.socket) -> None:
        """Transfer the ownership of the winner to the caller: :meth:`close` leaves it open.

        Args:
            winner: The socket that :meth:`run` returned.

        Raises:
            Cancelled: The token was cancelled, and the socket may be shut down already.
        """
        if self._token is not None:
            self._token.unwatch(winner)
            self._token.check()
        del self._attempts[winner]

    def close(self) -> None:
        """Close the sockets that were not released. A second call does no harm."""
        for sock in self._attempts:
            self._close(sock)

    def _start(self, address: _Address) -> None:
        try:
            sock = socket.socket(address.family, address.kind, address.protocol)
        except OSError as error:
            # The family isn't supported, or the process is out of file descriptors.
            self._errors.append(error)
            return
        self._attempts[sock] = address, time.monotonic()
        sock.setblocking(False)
        if self._receive_buffer is not None:
            # Before connecting: the size of the window is agreed then (RFC 7323 section 2.2).
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        if self._token is not None:
            self._token.watch(sock)
        code = sock.connect_ex(address.sockaddr)
        if code in _IN_PROGRESS:
            self._selector.register(sock, selectors.EVENT_WRITE, data=sock)
            self._next = time.monotonic() + DELAY
        else:
            self._fail(sock, code)

    def _wait(self, seconds: float | None) -> socket.socket | None:
        for key, _ in self._selector.select(seconds):
            sock: socket.socket = key.data
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code == 0:
                self._note_silent(sock)
                return sock
            self._selector.unregister(sock)
            self._fail(sock, code)
        return None

    def _fail(self, sock: socket.socket, code: int) -> None:
        self._close(sock)
        del self._attempts[sock]
        self._errors.append(OSError(code, os.strerror(code)))
        self._next = 0.0

    def _close(self, sock: socket.socket) -> None:
        if self._token is not None:
            # Before close(): the system may reuse the number of the descriptor at once.
            self._token.unwatch(sock)
        sock.close()

    def _note_silent(self, winner: socket.socket | None = None) -> None:
        """Record the address that answered, and those that had enough time and did not."""
        if self._memory is None:
            return
        now = time.monotonic()
        for sock, (address, started) in self._attempts.items():
            if sock is winner:
                self._memory.note(address.sockaddr, answered=True)
            elif now - started >= DELAY:
                self._memory.note(address.sockaddr, answered=False)


def _rank(error: OSError) -> int:
    """Rank the errors of several addresses. The most informative one has the lowest rank."""
    if error.errno in _USED_UP:
        return 0
    return 2 if error.errno in _NO_ROUTE else 1
