"""Runs pulpcore's own unit tests of downloaders with FuturesDownloader in place of theirs.

Not those of ``FileDownloader``, which this library doesn't replace; nor those of the stages and of
the content app, which have mocks in place of any downloader; nor its functional tests, which need
a Pulp that serves its REST API, and clients generated from it.
"""

import asyncio
import atexit
import functools
import inspect
from importlib import import_module
from typing import Any

BASE = "pulpcore.tests.unit.download.test_downloader_base"
FACTORY = "pulpcore.tests.unit.download.test_downloader_factory"
COUNT = 3  # in each module


def run(function: Any) -> None:
    """Run a test, which may be a coroutine function."""

    async def main() -> None:
        if inspect.isawaitable(result := function()):
            await result

    asyncio.get_event_loop().run_until_complete(main())


async def session_of_aiohttp() -> Any:
    """Return a new session, which must be made while an event loop runs."""
    import aiohttp

    return aiohttp.ClientSession()


def own(module: Any) -> list[Any]:
    """Return pulpcore's tests in a module; none of them has a fixture."""
    found = [value for name, value in vars(module).items() if name.startswith("test_")]
    assert len(found) >= COUNT
    return found


def test_base(pools, loop, monkeypatch) -> None:
    """The digests that a downloader expects are kept, and must have one that Pulp trusts."""
    from pulpcore.app.models import Artifact
    from pulpcore.plugin.download.futures.pulp import FuturesDownloader

    module: Any = import_module(BASE)
    # Without one, a downloader that refuses its arguments leaves a session open, as pulpcore's.
    session = loop.run_until_complete(session_of_aiohttp())
    build = functools.partial(FuturesDownloader, session=session)
    # As the module's own fixture does.
    monkeypatch.setattr(Artifact, "DIGEST_FIELDS", {"sha512", "sha256"})
    monkeypatch.setattr(module, "BaseDownloader", build)
    for test in own(module):
        run(test)
    loop.run_until_complete(session.close())


def test_factory(pools, loop, domain, monkeypatch, request) -> None:
    """The session of a downloader has the headers of its remote and Pulp's user agent."""
    from pulpcore.plugin.download.futures.pulp import FuturesDownloader

    # What its tests are marked with.
    request.config.addinivalue_line("markers", "asyncio: a coroutine function")
    module: Any = import_module(FACTORY)
    original = module.DownloaderFactory
    made = []

    class Factory(original):
        def __init__(self, remote: Any):
            kinds = {"http": FuturesDownloader, "https": FuturesDownloader}
            super().__init__(remote, downloader_overrides=kinds)
            made.append(self)

        def build(self, url: str, **options: Any) -> Any:
            downloader = super().build(url, **options)
            assert isinstance(downloader, FuturesDownloader)
            return downloader

    monkeypatch.setattr(module, "DownloaderFactory", Factory)
    for test in own(module):
        run(test)
    for each in made:
        loop.run_until_complete(each.build("http://127.0.0.1/").session.close())
        atexit.unregister(each._session_cleanup)
