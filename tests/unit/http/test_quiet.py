"""Tests of the filter that redacts urllib3's log records during downloads."""

from __future__ import annotations

import logging

import pytest

from pulpcore.plugin.download.futures.http.wire.quiet import quiet


def test_only_of_downloads(caplog: pytest.LogCaptureFixture) -> None:
    """urllib3's log records are redacted within a download. Those of others stay as they are."""
    log = logging.getLogger("urllib3.connectionpool")
    with caplog.at_level(logging.DEBUG, log.name):
        with quiet():
            log.debug("GET %s", "http://a/f?token=secret")
        log.debug("GET %s", "http://a/f?token=mine")
    redacted, other = caplog.messages
    assert "secret" not in redacted
    assert other == "GET http://a/f?token=mine"
