"""Fixtures that provide a real Pulp: settings, a database of its own and a site to sync from.

Django can be set up once in a process, so the setup lasts for the whole run. Tests avoid each other
by using content of their own, and mostly a domain of their own.

The example of the documentation can only be imported after Django is set up. So whatever needs it
or pulpcore imports it within functions.
"""

import asyncio
import atexit
import base64
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from hashlib import sha256
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest
from servers.files import FileServer
from servers.postgresql import PostgreSQL
from servers.tls import Tls

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parents[1] / "docs" / "examples"
SECONDS = 120
HOOKED = "hooked.py"

SETTINGS = """
DATABASES = {{
    "default": {{
        "ENGINE": "django.db.backends.postgresql",
        "HOST": "{database.folder}",
        "NAME": "{database.name}",
        "USER": "{database.name}",
    }}
}}
DB_ENCRYPTION_KEY = "{folder}/key"
DEPLOY_ROOT = "{folder}"
MEDIA_ROOT = "{folder}/media"
WORKING_DIRECTORY = "{folder}/tmp"
FILE_UPLOAD_TEMP_DIR = "{folder}/tmp"
SECRET_KEY = "{secret}"
CONTENT_ORIGIN = "http://127.0.0.1"
ANALYTICS = False
CACHE_ENABLED = False
DOMAIN_ENABLED = True
"""
HOOK = """
INSTALLED_APPS = ["pulp_hook.Hook", "dynaconf_merge"]
"""


@pytest.fixture(scope="session")
def pulp() -> Iterator[Path]:
    """Set up Django, migrate the database, and return Pulp's folder."""
    with ExitStack() as stack:
        environment = stack.enter_context(pytest.MonkeyPatch.context())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pulp-")))
        database = stack.enter_context(PostgreSQL())
        for name in ("media", "tmp"):
            (folder / name).mkdir()
        (folder / "key").write_bytes(base64.b64encode(os.urandom(32)))
        settings = folder / "settings.py"
        settings.write_text(SETTINGS.format(database=database, folder=folder, secret=uuid4().hex))
        (folder / HOOKED).write_text(settings.read_text() + HOOK)
        environment.setenv("PULP_SETTINGS", str(settings))
        environment.setenv("DJANGO_SETTINGS_MODULE", "pulpcore.app.settings")
        # The worker finds the example and the hook here, too.
        environment.setenv("PYTHONPATH", os.pathsep.join([str(EXAMPLES), str(HERE)]))
        environment.syspath_prepend(EXAMPLES)
        import django

        django.setup()
        from django.core.management import call_command
        from django.db import connections

        stack.callback(connections.close_all)
        call_command("migrate", verbosity=0, interactive=False)
        yield folder


@pytest.fixture
def workdir(pulp: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Provide an empty working directory, where Pulp makes those of its tasks."""
    with tempfile.TemporaryDirectory(dir=pulp / "tmp") as name:
        monkeypatch.chdir(name)
        yield Path(name)
        monkeypatch.undo()


@pytest.fixture
def domain(pulp: Path) -> Iterator[Any]:
    """Make a domain other than the default one, and make it current within the test."""
    from pulpcore.app.contexts import with_domain
    from pulpcore.plugin.models import Domain

    name = f"domain-{uuid4().hex}"
    made = Domain.objects.create(
        name=name,
        storage_class="pulpcore.app.models.storage.FileSystem",
        storage_settings={"location": str(pulp / "media" / name)},
    )
    with with_domain(made):
        yield made


@pytest.fixture
def task(workdir: Path) -> Iterator[Any]:
    """Make a task of the current domain, which the test runs itself as a worker would."""
    from pulpcore.app.contexts import with_task_context
    from pulpcore.plugin.models import Task

    made = Task.objects.create(name="test", state="running", logging_cid=uuid4().hex)
    with with_task_context(made):
        yield made


@pytest.fixture
def example(pulp: Path) -> Any:
    """Return the module of the documentation's sync example."""
    return plugin("pulp_sync")


@pytest.fixture
def async_example(pulp: Path) -> Any:
    """Return the module of the documentation's example of an async task."""
    return plugin("pulp_async")


def plugin(name: str) -> Any:
    """Import a module as a plugin of Pulp."""
    from pulpcore.app.apps import MODULE_PLUGIN_VERSIONS

    MODULE_PLUGIN_VERSIONS[name] = MODULE_PLUGIN_VERSIONS["pulp_file"]
    return import_module(name)


@pytest.fixture
def synced(pulp: Path) -> Callable[..., tuple[Any, Any]]:
    """Return `synced(server, **fields)`, which makes a remote for a server, and a repository."""

    def make(server: FileServer, **fields: Any) -> tuple[Any, Any]:
        from pulp_file.app.models import FileRemote, FileRepository

        fields = {"name": uuid4().hex, "url": server.url("/PULP_MANIFEST"), **fields}
        return FileRemote.objects.create(**fields), FileRepository.objects.create(name=uuid4().hex)

    return make


@pytest.fixture
def site(file_server: Callable[..., FileServer]) -> Callable[..., FileServer]:
    """Return `site(files, **options)`, which serves files and their manifest; see FileServer.

    A file that is None is listed but missing.
    """

    def make(files: Mapping[str, bytes | None], **options: Any) -> FileServer:
        lines = [
            f"{name},{sha256(content or b'').hexdigest()},{len(content or b'')}\n"
            for name, content in files.items()
        ]
        served = {
            f"/{quote(name)}": content for name, content in files.items() if content is not None
        }
        return file_server({"/PULP_MANIFEST": "".join(lines).encode(), **served}, **options)

    return make


@pytest.fixture
def pem(tls: Tls) -> dict[str, str]:
    """Return the fields of a remote that a server with client certificates accepts."""
    return {
        "ca_cert": tls.ca.read_text(),
        "client_cert": tls.client.certificate.read_text(),
        "client_key": tls.client.key.read_text(),
    }


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Return the path of the worker's log."""
    return tmp_path / "log"


@pytest.fixture
def worker(pulp: Path, log: Path) -> Callable[[], AbstractContextManager[subprocess.Popen[bytes]]]:
    """Make a context in which a worker runs until no task waits. It gives the process."""
    from django_guid import set_guid

    # Pulp gives each request an id, which a task takes from the request that dispatches it.
    set_guid(uuid4().hex)

    @contextmanager
    def start() -> Iterator[subprocess.Popen[bytes]]:
        with (
            log.open("wb") as file,
            subprocess.Popen(
                [Path(sys.executable).with_name("pulpcore-worker"), "--burst"],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            ) as process,
        ):
            try:
                yield process
            finally:
                process.kill()

    return start


@pytest.fixture
def work(worker: Any, log: Path) -> Callable[[], None]:
    """Return `work()`, which lets a worker run the waiting tasks."""

    def run() -> None:
        with worker() as process:
            assert process.wait(SECONDS) == 0, log.read_text()

    return run


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Provide the event loop that pulpcore finds by `get_event_loop()`."""
    made = asyncio.new_event_loop()
    asyncio.set_event_loop(made)
    yield made
    asyncio.set_event_loop(None)
    made.close()


@pytest.fixture(scope="session")
def pools(pulp: Path) -> None:
    """Start the threads that pulpcore and asgiref keep, which are no leak of a test."""
    from asgiref.sync import SyncToAsync

    from pulpcore.download.base import THREADPOOL

    SyncToAsync.single_thread_executor.submit(int).result()
    barrier = threading.Barrier(THREADPOOL._max_workers)
    for future in [THREADPOOL.submit(barrier.wait) for _ in range(barrier.parties)]:
        future.result()


@pytest.fixture
def hooked(
    pools: None, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Have each file remote of pulp_file download with FuturesDownloader."""
    from pulp_file.app.models import FileRemote

    plugin = import_module("pulp_downloader")
    made: list[Any] = []

    def factory(remote: Any) -> Any:
        if not hasattr(remote, "_download_factory"):
            made.append(plugin.Downloads.download_factory.fget(remote))
        return remote._download_factory

    monkeypatch.setattr(FileRemote, "download_factory", property(factory))
    yield
    for each in made:
        loop.run_until_complete(each.build("http://127.0.0.1/").session.close())
        # It would ask for an event loop when the interpreter ends.
        atexit.unregister(each._session_cleanup)
