"""Recognises public IP addresses, so that a hostile URL can't reach the internal network (SSRF)."""

from __future__ import annotations

import ipaddress
import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network

# The global unicast addresses of IPv6 (IANA's registry of the address space). Loopback, link-local
# and site-local addresses lie outside.
_UNICAST = IPv6Network("2000::/3")
# The well-known prefix of NAT64: the last 32 bits are an IPv4 address (RFC 6052 section 2.1).
_NAT64 = IPv6Network("64:ff9b::/96")
# Special networks that some versions of Python count as global: protocol assignments, which some
# clouds use for their metadata service (RFC 6890 section 2.2.2), and documentation (RFC 9637).
_SPECIAL = (ipaddress.ip_network("192.0.0.0/24"), ipaddress.ip_network("3fff::/20"))


class ForbiddenAddress(OSError):
    """The address isn't public, and ``public_only`` is set."""


def check_peer(sock: socket.socket) -> None:
    """Check that a socket is connected to a public address.

    Only the address of the connected socket is reliable. A name that is resolved before the
    connection is made may have another address at the next look-up (DNS rebinding).

    Args:
        sock: The connected socket.

    Raises:
        ForbiddenAddress:
            The peer's address isn't public.
        OSError:
            The socket isn't connected any more.
    """
    address = sock.getpeername()[0]
    if not is_public(address):
        raise ForbiddenAddress(f"{address} is not a public address")


def is_public(address: str) -> bool:
    """Whether an address belongs to the public internet.

    Loopback, link-local, private, carrier-grade NAT, multicast, reserved and other special-purpose
    addresses aren't public (IANA's registries of special-purpose addresses, RFC 6890). For an IPv6
    address that embeds an IPv4 address (IPv4-mapped, 6to4, or NAT64 with the well-known prefix),
    the IPv4 address decides.

    The function can't recognise public addresses of your own network, nor NAT64 addresses with a
    prefix of your own network.

    Args:
        address: The address. An IPv6 address may have a zone (``fe80::1%eth0``).

    Raises:
        ValueError: The text isn't an IP address.
    """
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, IPv6Address):
        behind = found.ipv4_mapped or found.sixtofour
        if found in _NAT64:
            behind = IPv4Address(int(found) & 0xFFFFFFFF)
        if behind is not None:
            return is_public(str(behind))
        if found not in _UNICAST:
            return False
    if any(found in network for network in _SPECIAL):
        return False
    return found.is_global and not (found.is_multicast or found.is_reserved)
