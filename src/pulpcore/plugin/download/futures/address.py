"""Which addresses are public, for who must not be sent into his own network by a hostile URL."""

from __future__ import annotations

import ipaddress
import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network

# All that is given out of IPv6 to hosts (IANA's registry of address space). What is for this
# machine, the link or a site lies elsewhere.
_UNICAST = IPv6Network("2000::/3")
# An IPv4 address behind a translator (RFC 6052 section 2.1).
_NAT64 = IPv6Network("64:ff9b::/96")
# What not every version of Python knows to be special: protocol assignments, in which a cloud has
# its metadata (RFC 6890 section 2.2.2), and documentation (RFC 9637).
_SPECIAL = (ipaddress.ip_network("192.0.0.0/24"), ipaddress.ip_network("3fff::/20"))


class ForbiddenAddress(OSError):
    """A host's address isn't public, and only such are allowed."""


def check_peer(sock: socket.socket) -> None:
    """See that a socket is connected to a public address.

    It is the only look that counts: what a name stands for may change with each.

    Args:
        sock: The socket.

    Raises:
        ForbiddenAddress: It is connected to another one.
        OSError: It isn't connected any more.
    """
    address = sock.getpeername()[0]
    if not is_public(address):
        raise ForbiddenAddress(f"{address} is not a public address")


def is_public(address: str) -> bool:
    """Whether an address is one of the public internet.

    It isn't if it is that of this machine, of the link, of a private network or of one behind
    carrier-grade NAT, or if it is multicast, reserved or special in another way (IANA's registries
    of special-purpose addresses, RFC 6890). An IPv6 address that stands for an IPv4 address
    (IPv4-mapped, 6to4, or NAT64 with the well-known prefix) is what that one is.

    What can't be told from an address: whether a public one belongs to your own network, or is a
    NAT64 address with a prefix of your network's own.

    Args:
        address: The address; behind an IPv6 address may be its zone.
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
