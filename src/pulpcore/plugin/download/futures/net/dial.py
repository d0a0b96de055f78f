"""Connections: TCP to the first address of a host that answers, and TLS on top of it.

HTTP and FTP both connect here. There are no threads: one call starts non-blocking connects and
waits for all of them with one selector.
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
from ..waiting.lock import this_process

DELAY = 0.25
"""Seconds that an address has for itself before the next one is tried beside it (RFC 8305 section
8: Connection Attempt Delay)."""

# Not EAGAIN, by which Linux says that it can't begin.
_IN_PROGRESS = (0, errno.EINPROGRESS, errno.EINTR)
# Whatever other addresses failed of, this one might have answered.
_USED_UP = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
# This machine has no route, or no address, for the family. Any other failure says more.
_NO_ROUTE = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.ENETUNREACH, errno.EHOSTUNREACH)


class DialTimeout(TimeoutError):
    """No address of a host answered within the time limit."""


class _Address(NamedTuple):
    """What getaddrinfo says of an address, but for the canonical name."""

    family: int
    kind: int
    protocol: int
    sockaddr: Any


class AddressMemory:
    """Remembers the addresses that didn't answer, so that they are tried last.

    It takes no lock, so that a signal handler can't find one held: it does nothing with its dict
    that isn't one atomic operation.
    """

    MOST = 1024
    """Addresses that are remembered. When they are more, all are forgotten: remembering only saves
    time."""

    def __init__(self) -> None:
        """Make one that knows of no address."""
        self._silent: dict[Any, None] = {}

    @classmethod
    def of(cls, context: Context) -> AddressMemory:
        """Return the one that all share who share a context.

        Args:
            context: The context.
        """
        memory: AddressMemory = context.cache.setdefault((cls, this_process()), cls())
        return memory

    def is_silent(self, sockaddr: Any) -> bool:
        """Whether an address didn't answer when it was last tried.

        Args:
            sockaddr: The address, as getaddrinfo gives it.
        """
        return sockaddr in self._silent

    def note(self, sockaddr: Any, *, answered: bool) -> None:
        """Remember how a connection attempt ended.

        Args:
            sockaddr: The address, as getaddrinfo gives it.
            answered: Whether a connection was made.
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
) -> socket.socket:
    """Connect to the address of a host that answers first (RFC 8305, "Happy Eyeballs").

    The families alternate, beginning with the one that the system puts first. The next address is
    tried after 250 ms, or at once when an attempt fails; the attempts before go on meanwhile.
    The cancellation token of the running work (:func:`~..waiting.cancellation.current`) ends the
    call at once, except during the look-up of the name, which the system doesn't interrupt.

    Args:
        host: The name or address, an IPv6 address without brackets.
        port: The port.
        timeout: The time limit for all addresses together, without the look-up of the name
            (seconds); None for no limit.
        memory: The addresses that didn't answer before; they are tried last.
        public_only: Close a connection to an address that isn't public before a byte is sent.

    Returns:
        A connected socket that blocks without a time-out and sends small segments at once
        (TCP_NODELAY).

    Raises:
        socket.gaierror: The name can't be resolved.
        UnicodeError: The name can't be a name: a label is empty or too long.
        DialTimeout: No address answered within the time limit.
        ForbiddenAddress: ``public_only``, and the address is not public.
        ConnectionRefusedError: Nothing listens there.
        OSError: All addresses failed otherwise. Where they failed differently, it is the failure
            that says most.
        Cancelled: The running work is to stop.
    """
    addresses = _resolve(host, port)
    if memory is not None:
        # A stable sort: the others keep their order.
        addresses.sort(key=lambda address: memory.is_silent(address.sockaddr))
    race = _Race(addresses, memory)
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
            # A signal may have interrupted the first call.
            race.close()


def secure(
    sock: socket.socket,
    tls_context: ssl.SSLContext,
    server_hostname: str,
    timeout: float | None,
    session: ssl.SSLSession | None = None,
) -> ssl.SSLSocket:
    """Do the TLS handshake on a connection.

    The cancellation token of the running work ends it at once.

    Args:
        sock: The connection. It is closed if the handshake fails.
        tls_context: Whom to trust, and what to show.
        server_hostname: The host that the certificate must be for, an IPv6 address without
            brackets. The final dot of a name, and the zone of an address, are in no certificate and
            are left out.
        timeout: The time limit of the whole handshake (seconds); None for no limit.
        session: The TLS session to resume.

    Returns:
        The encrypted connection, with ``timeout`` set. An end of the connection without a
        close_notify raises ssl.SSLEOFError when it is read, and isn't taken for an end of file.

    Raises:
        ssl.SSLCertVerificationError: The certificate isn't trusted.
        ssl.SSLError: The handshake failed otherwise.
        TimeoutError: It took too long.
        OSError: The connection broke.
        Cancelled: The running work is to stop.
    """
    token = current()
    secured: socket.socket = sock
    try:
        sock.settimeout(timeout)
        secured = tls_context.wrap_socket(
            sock,
            server_hostname=server_hostname.partition("%")[0].rstrip("."),
            session=session,
            # Later, when the socket that does it is the one that a cancellation shuts down.
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
            # A cancellation shuts the connection down: it isn't the server that failed.
            token.check()
        raise


def _resolve(host: str, port: int) -> list[_Address]:
    """Return the addresses of a host, with the families taking turns (RFC 8305 section 4)."""
    found = socket.getaddrinfo(host, port, socket.AF_UNSPEC, socket.SOCK_STREAM)
    if not found:
        raise socket.gaierror(socket.EAI_NONAME, "the name has no address")
    by_family: dict[int, list[_Address]] = {}
    # A name may be listed twice with one address.
    for family, kind, protocol, _, sockaddr in dict.fromkeys(found):
        by_family.setdefault(family, []).append(_Address(family, kind, protocol, sockaddr))
    turns = itertools.chain.from_iterable(itertools.zip_longest(*by_family.values()))
    return [address for address in turns if address is not None]


class _Race:
    """Connection attempts of which the first that succeeds wins."""

    def __init__(self, addresses: Iterable[_Address], memory: AddressMemory | None) -> None:
        self._addresses = deque(addresses)
        self._memory = memory
        self._token = current()
        # Unlike that of epoll it needs no descriptor of its own.
        self._selector = selectors.PollSelector()
        # The attempts that have not failed: the address, and when it was started.
        self._attempts: dict[socket.socket, tuple[_Address, float]] = {}
        self._errors: list[OSError] = []
        # When the next address is tried, whatever the attempts do (``time.monotonic()``).
        self._next = 0.0

    def run(self, timeout: float | None) -> socket.socket:
        """Try the addresses until one answers, and return its socket, which is still ours.

        Args:
            timeout: The time limit (seconds); None for no limit.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            if self._token is not None:
                # After watch() and before select(): a cancellation from here on wakes select(). And
                # before the errors are looked at, which a cancellation causes too.
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
            # An error's traceback refers to this frame: without a cycle both are freed at once.
            self._errors.clear()

    def release(self, winner: socket.socket) -> None:
        """Leave the winner to the caller.

        Args:
            winner: The socket that :meth:`run` returned.

        Raises:
            Cancelled: The work is to stop, and the socket may be shut down already.
        """
        if self._token is not None:
            self._token.unwatch(winner)
            self._token.check()
        del self._attempts[winner]

    def close(self) -> None:
        """Close the sockets that are still ours. It may be called again."""
        for sock in self._attempts:
            self._close(sock)

    def _start(self, address: _Address) -> None:
        try:
            sock = socket.socket(address.family, address.kind, address.protocol)
        except OSError as error:
            # The family isn't supported, or there is no descriptor left.
            self._errors.append(error)
            return
        self._attempts[sock] = address, time.monotonic()
        sock.setblocking(False)
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
            # First: the number of a closed descriptor may be that of another socket soon.
            self._token.unwatch(sock)
        sock.close()

    def _note_silent(self, winner: socket.socket | None = None) -> None:
        """Remember who has answered, and who had the time to and has not."""
        if self._memory is None:
            return
        now = time.monotonic()
        for sock, (address, started) in self._attempts.items():
            if sock is winner:
                self._memory.note(address.sockaddr, answered=True)
            elif now - started >= DELAY:
                self._memory.note(address.sockaddr, answered=False)


def _rank(error: OSError) -> int:
    """Order the failures of several addresses: the one that says most is the smallest."""
    if error.errno in _USED_UP:
        return 0
    return 2 if error.errno in _NO_ROUTE else 1
