"""Tests of which IP addresses are public."""

import socket

import pytest

from pulpcore.plugin.download.futures.address import ForbiddenAddress, check_peer, is_public


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.0",
        "192.167.255.255",
        "192.169.0.0",
        "223.255.255.255",
        "2606:4700::1111",
        "2a00:1450:4001:82b::200e",
        "3ffe::1",
        "::ffff:1.1.1.1",
        "64:ff9b::1.1.1.1",
        "2002:101:101::1",
    ],
)
def test_public(address):
    """Globally reachable addresses are public, up to the borders of the special ranges."""
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",  # unspecified
        "0.1.2.3",
        "127.0.0.1",  # loopback
        "127.255.255.254",
        "10.0.0.1",  # private
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "169.254.169.254",  # link-local; metadata of clouds
        "100.64.0.1",  # carrier-grade NAT
        "100.100.100.200",
        "100.127.255.255",
        "192.0.0.8",  # special
        "192.0.0.192",
        "192.0.2.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",  # multicast
        "239.255.255.250",
        "240.0.0.1",  # reserved
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "100::1",
        "2001:db8::1",
        "2001::1",
        "3fff::1",
        "5f00::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",  # of IPv4
        "::ffff:169.254.169.254",
        "::ffff:100.64.0.1",
        "::ffff:224.0.0.1",
        "64:ff9b::127.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1.1.1.1",
        "2002:7f00:1::1",
        "2002:a9fe:a9fe::",
    ],
)
def test_not_public(address):
    """Loopback, link-local, private, special and unused addresses are never public."""
    assert not is_public(address)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_peer(host):
    """The address check looks at the peer that a socket is connected to."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        server = socket.create_server((host, 0), family=family)
    except OSError:
        pytest.skip(f"there is no {host} here")
    with server, socket.create_connection(server.getsockname()[:2]) as sock:
        with pytest.raises(ForbiddenAddress, match=host):
            check_peer(sock)
        sock.close()
        with pytest.raises(OSError, match="descriptor"):
            check_peer(sock)


def test_peer_that_is_public():
    """The address check accepts a socket whose peer is public."""

    class Connected:
        def getpeername(self):
            return "2606:4700::1111", 443, 0, 0

    check_peer(Connected())
