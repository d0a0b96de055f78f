"""Tests of the keys by which downloads with `auth` share connections."""

from requests.auth import HTTPBasicAuth, HTTPDigestAuth

from pulpcore.plugin.download.futures.http.authentication import key_of


def test_keys_of_what_cannot_be_hashed():
    """A callable without a hash shares connections with itself only, not with an equal one."""
    auth = HTTPBasicAuth("me", "s3cret")
    other = HTTPBasicAuth("me", "s3cret")
    assert auth == other
    assert key_of(auth) == key_of(auth)
    assert hash(key_of(auth)) == hash(key_of(auth))
    assert key_of(auth) != key_of(other)
    assert key_of(HTTPDigestAuth("me", "s3cret")) != key_of(auth)
    assert key_of(auth) != auth


def test_keys_of_functions():
    """A callable with a hash is its own key for connections."""
    assert key_of(print) is print
