"""Tests of the redaction of values that the user gave."""

import pytest

from pulpcore.plugin.download.futures.cli import shown

URL = "http://me:s3cret@h/x?token=s3cret#s3cret"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (URL, "http://h/x?token=***"),
        (f"-o{URL}", "-ohttp://h/x?token=***"),
        ("http:/me:s3cret@h/x", "http:/h/x"),
        ("me:s3cret@proxy:3128", "proxy:3128"),
        ("a.bin", "a.bin"),
        ("folder@2/a", "folder@2/a"),
        ("", ""),
    ],
)
def test_value(text, expected):
    """Secrets are redacted from a URL, with or without a scheme. Other values stay unchanged."""
    assert shown.value(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("what?now", "what?now"), (URL, "http://h/x?token=***"), ("a:b@c/d", "a:b@c/d")],
)
def test_path(text, expected):
    """A path is shown unchanged unless it contains a URL."""
    assert shown.path(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("http://h", True), ("http:/h", True), ("c:/a", False), ("a/http://h", False), ("a:b", False)],
)
def test_is_url(text, expected):
    """A scheme followed by a slash makes a URL. A drive letter or a colon in a name doesn't."""
    assert shown.is_url(text) is expected


def test_message():
    """User values are redacted wherever a message quotes them.

    Other words that look like URLs stay.
    """
    message = f"use http://[USER:PASSWORD@]HOST, not {URL} or {URL!r}?really (or '--user'?)"
    expected = (
        "use http://[USER:PASSWORD@]HOST, not http://h/x?token=*** or 'http://h/x?token=***'?really"
        " (or '--user'?)"
    )
    assert shown.message(message, ["get", URL]) == expected
    assert shown.message(message, [f"--ca={URL}"]) == expected
    # click quotes an unknown option up to its equals sign.
    message = "No such option '--http://me:s3cret@h/x?token'."
    assert shown.message(message, [f"--{URL}"]) == "No such option '--http://h/x?***'."


def test_message_with_an_escaped_value():
    """A value is redacted in a message also where it is quoted as its Python repr."""
    value = "http://me:s3cret\\@h/x"
    assert "s3cret" not in shown.message(f"not {value!r}", [value])
