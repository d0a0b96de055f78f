"""The connections that are our part of urllib3."""

import pytest
import requests

from pulpcore.plugin.download.futures.http.transport import Connection


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("/a b", {}),
        ("/a\r\nX: y", {}),
        ("/\u00e9", {}),
        ("", {"X": "a\r\nY: b"}),
        ("/", {"X\nY": "a"}),
        ("/", {"X": b"a\nb"}),
        ("/", {"X": "a\rb"}),
    ],
)
def test_nothing_is_smuggled_in(target, headers):
    """What would end a line of the request, or split its first, is never sent."""
    with pytest.raises(requests.exceptions.InvalidURL, match="can't be sent"):
        Connection("files.example").ask("GET", target, headers)
