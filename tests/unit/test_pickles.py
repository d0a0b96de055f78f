"""Errors and settings that version 0.1.0 pickled are loaded by this version.

A queue of tasks may hold them across an upgrade.
"""

import base64
import pickle

import pytest

from pulpcore.plugin.download.futures import (
    SSL,
    DownloadError,
    DownloadFailed,
    NotAuthorized,
    NotFound,
    Timeout,
    User,
    ValidationError,
)
from pulpcore.plugin.download.futures.error import Facts
from pulpcore.plugin.download.futures.validation import (
    DigestMismatch,
    MismatchError,
    SizeMismatch,
)

# What `pickle.dumps(value, protocol=4)` of version 0.1.0 returned, in base64.
PICKLES = {
    "DownloadError": (
        "gASVeQAAAAAAAACMJnB1bHBjb3JlLnBsdWdpbi5kb3dubG9hZC5mdXR1cmVzLmVycm9ylIwIX3Jlc3RvcmWUk5"
        "RoAIwNRG93bmxvYWRFcnJvcpSTlIwJbm8gcmVhc29ulIWUhpRSlH2UKIwIZG93bmxvYWSUTowGcmVhc29ulGgF"
        "dWIu"
    ),
    "DownloadFailed": (
        "gASV9wAAAAAAAACMJnB1bHBjb3JlLnBsdWdpbi5kb3dubG9hZC5mdXR1cmVzLmVycm9ylIwIX3Jlc3RvcmWUk5"
        "RoAIwORG93bmxvYWRGYWlsZWSUk5SMFnRoZSBzZXJ2ZXIgcmVwbGllZCA1MDOUhZSGlFKUfZQojAhkb3dubG9h"
        "ZJROjAZyZWFzb26UaAWMBWZhY3RzlGgAjAVGYWN0c5STlCiMHmh0dHA6Ly9leGFtcGxlLm9yZy9hP3Rva2VuPS"
        "oqKpRLA0sHTfcBSwJHP/gAAAAAAAB0lIGUjAl0cmFuc2llbnSUiIwLcmV0cnlfYWZ0ZXKUR0AAAAAAAAAAdWIu"
    ),
    "NotFound": (
        "gASVuQAAAAAAAACMJnB1bHBjb3JlLnBsdWdpbi5kb3dubG9hZC5mdXR1cmVzLmVycm9ylIwIX3Jlc3RvcmWUk5"
        "RoAIwITm90Rm91bmSUk5SMBGdvbmWUhZSGlFKUfZQojAhkb3dubG9hZJROjAZyZWFzb26UaAWMBWZhY3RzlGgA"
        "jAVGYWN0c5STlCiMHmh0dHA6Ly9leGFtcGxlLm9yZy9hP3Rva2VuPSoqKpRLAE5LAEsARwAAAAAAAAAAdJSBlH"
        "ViLg=="
    ),
    "NotAuthorized": (
        "gASVwAAAAAAAAACMJnB1bHBjb3JlLnBsdWdpbi5kb3dubG9hZC5mdXR1cmVzLmVycm9ylIwIX3Jlc3RvcmWUk5"
        "RoAIwNTm90QXV0aG9yaXplZJSTlIwGZGVuaWVklIWUhpRSlH2UKIwIZG93bmxvYWSUTowGcmVhc29ulGgFjAVm"
        "YWN0c5RoAIwFRmFjdHOUk5QojB5odHRwOi8vZXhhbXBsZS5vcmcvYT90b2tlbj0qKiqUSwBOSwBLAEcAAAAAAA"
        "AAAHSUgZR1Yi4="
    ),
    "ValidationError": (
        "gASVwQAAAAAAAACMJnB1bHBjb3JlLnBsdWdpbi5kb3dubG9hZC5mdXR1cmVzLmVycm9ylIwIX3Jlc3RvcmWUk5"
        "RoAIwPVmFsaWRhdGlvbkVycm9ylJOUjAV3cm9uZ5SFlIaUUpR9lCiMCGRvd25sb2FklE6MBnJlYXNvbpRoBYwF"
        "ZmFjdHOUaACMBUZhY3RzlJOUKIweaHR0cDovL2V4YW1wbGUub3JnL2E/dG9rZW49KioqlEsATksASwBHAAAAAA"
        "AAAAB0lIGUdWIu"
    ),
    "MismatchError": (
        "gASV5wAAAAAAAACMJnB1bHBjb3JlLnBsdWdpbi5kb3dubG9hZC5mdXR1cmVzLmVycm9ylIwIX3Jlc3RvcmWUk5"
        "RoAIwNTWlzbWF0Y2hFcnJvcpSTlIwVZXhwZWN0ZWQgMSwgYnV0IGdvdCAylIWUhpRSlH2UKIwIZG93bmxvYWSU"
        "TowGcmVhc29ulGgFjAhleHBlY3RlZJRLAYwGYWN0dWFslEsCjAVmYWN0c5RoAIwFRmFjdHOUk5QojB5odHRwOi"
        "8vZXhhbXBsZS5vcmcvYT90b2tlbj0qKiqUSwBOSwBLAEcAAAAAAAAAAHSUgZR1Yi4="
    ),
    "SizeMismatch": (
        "gASV9QAAAAAAAACMJnB1bHBjb3JlLnBsdWdpbi5kb3dubG9hZC5mdXR1cmVzLmVycm9ylIwIX3Jlc3RvcmWUk5"
        "RoAIwMU2l6ZU1pc21hdGNolJOUjCR0aGUgc2l6ZSBzaG91bGQgYmUgNyBieXRlcywgYnV0IGlzIDOUhZSGlFKU"
        "fZQojAhkb3dubG9hZJROjAZyZWFzb26UaAWMCGV4cGVjdGVklEsHjAZhY3R1YWyUSwOMBWZhY3RzlGgAjAVGYW"
        "N0c5STlCiMHmh0dHA6Ly9leGFtcGxlLm9yZy9hP3Rva2VuPSoqKpRLAE5LAEsARwAAAAAAAAAAdJSBlHViLg=="
    ),
    "DigestMismatch": (
        "gASV8AAAAAAAAACMJnB1bHBjb3JlLnBsdWdpbi5kb3dubG9hZC5mdXR1cmVzLmVycm9ylIwIX3Jlc3RvcmWUk5"
        "RoAIwORGlnZXN0TWlzbWF0Y2iUk5SMF2V4cGVjdGVkIGFhLCBidXQgZ290IGJilIWUhpRSlH2UKIwIZG93bmxv"
        "YWSUTowGcmVhc29ulGgFjAhleHBlY3RlZJSMAmFhlIwGYWN0dWFslIwCYmKUjAVmYWN0c5RoAIwFRmFjdHOUk5"
        "QojB5odHRwOi8vZXhhbXBsZS5vcmcvYT90b2tlbj0qKiqUSwBOSwBLAEcAAAAAAAAAAHSUgZR1Yi4="
    ),
    "SSL": (
        "gASVnAAAAAAAAACMKXB1bHBjb3JlLnBsdWdpbi5kb3dubG9hZC5mdXR1cmVzLnNldHRpbmdzlIwDU1NMlJOUKY"
        "GUfZQojA5jYV9jZXJ0aWZpY2F0ZZSMBmNhLnBlbZSMEmNsaWVudF9jZXJ0aWZpY2F0ZZSMCGNlcnQucGVtlIwK"
        "Y2xpZW50X2tleZSMB2tleS5wZW2UjAp2YWxpZGF0aW9ulIl1Yi4="
    ),
    "User": (
        "gASVXwAAAAAAAACMKXB1bHBjb3JlLnBsdWdpbi5kb3dubG9hZC5mdXR1cmVzLnNldHRpbmdzlIwEVXNlcpSTlC"
        "mBlH2UKIwEbmFtZZSMA2FubpSMCHBhc3N3b3JklIwGczNjcmV0lHViLg=="
    ),
    "Timeout": (
        "gASVggAAAAAAAACMKXB1bHBjb3JlLnBsdWdpbi5kb3dubG9hZC5mdXR1cmVzLnNldHRpbmdzlIwHVGltZW91dJ"
        "STlCmBlH2UKIwHY29ubmVjdJRLAYwEcmVhZJRHQAQAAAAAAACMBXRvdGFslEsDjAtsZWFzdF9zcGVlZJRLBIwG"
        "d2luZG93lEsFdWIu"
    ),
}

URL = "http://example.org/a?token=***"


def load(name):
    """Load the pickle of that name."""
    return pickle.loads(base64.b64decode(PICKLES[name]))


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (DownloadError, "no reason"),
        (NotFound, f"{URL}: gone (received 0 bytes, 0.0 s)"),
        (NotAuthorized, f"{URL}: denied (received 0 bytes, 0.0 s)"),
        (ValidationError, f"{URL}: wrong (received 0 bytes, 0.0 s)"),
        (MismatchError, f"{URL}: expected 1, but got 2 (received 0 bytes, 0.0 s)"),
        (
            SizeMismatch,
            f"{URL}: the size should be 7 bytes, but is 3 (received 0 bytes, 0.0 s)",
        ),
        (DigestMismatch, f"{URL}: expected aa, but got bb (received 0 bytes, 0.0 s)"),
    ],
)
def test_error(kind, text):
    """An error pickled by version 0.1.0 has the same class and text, and no download."""
    error = load(kind.__name__)
    assert type(error) is kind
    assert str(error) == text
    assert error.download is None


def test_facts():
    """The facts of an error pickled by version 0.1.0, and whether it is transient, are kept."""
    error = load("DownloadFailed")
    assert type(error) is DownloadFailed
    assert error.facts == Facts(URL, 3, 7, 503, 2, 1.5)
    assert (error.transient, error.retry_after) == (True, 2.0)
    assert error.reason == "the server replied 503"


@pytest.mark.parametrize(
    ("name", "expected", "actual"),
    [("MismatchError", 1, 2), ("SizeMismatch", 7, 3), ("DigestMismatch", "aa", "bb")],
)
def test_mismatch(name, expected, actual):
    """A mismatch error pickled by version 0.1.0 keeps `expected` and `actual`."""
    error = load(name)
    assert (error.expected, error.actual) == (expected, actual)


@pytest.mark.parametrize(
    "setting",
    [SSL("ca.pem", "cert.pem", "key.pem", False), User("ann", "s3cret"), Timeout(1, 2.5, 3, 4, 5)],
)
def test_setting(setting):
    """A setting pickled by version 0.1.0 equals a new one, including newer attributes."""
    loaded = load(type(setting).__name__)
    assert loaded == setting
    assert repr(loaded) == repr(setting)


def test_a_loaded_setting_can_be_checked():
    """`validate()` works on a setting pickled by 0.1.0, which had fewer attributes."""
    loaded = load("SSL")
    loaded.ca_certificate = loaded.client_certificate = loaded.client_key = None
    loaded.validate()
    load("User").validate()
    load("Timeout").validate()
