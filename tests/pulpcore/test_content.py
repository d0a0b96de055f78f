"""Tests of pulpcore's content app, a process of its own, with FuturesDownloader in the factory.

It streams on-demand files to clients while it saves them, and its own source breaks.
"""

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, Self
from uuid import uuid4

import pytest
from servers.files import CutAfter, File, FileServer, ResetAfter, Status
from servers.listener import HOST
from servers.relay import Relay

SECONDS = 60
SIZE = 1_000_000
OTHER = "/other"
HOOKED = "hooked.py"


class App:
    """The content app, or another server of Pulp's. It ends with its ``with``.

    Attributes:
        folder: Where it keeps the files that it downloads.
        port: Where it listens.
    """

    def __init__(self, settings: Path, folder: Path, program: str = "pulpcore-content"):
        """Start it; it listens at once, and answers when it has started.

        Args:
            settings: Its settings, in Pulp's folder.
            folder: The folder for its log.
            program: The name of its program.
        """
        self.folder = settings.parent / "tmp"
        self._log = folder / f"{program}.log"
        with self._log.open("wb") as log, socket.create_server((HOST, 0)) as listening:
            self.port = listening.getsockname()[1]
            number = listening.fileno()
            self._process = subprocess.Popen(
                [
                    Path(sys.executable).with_name(program),
                    f"--bind=fd://{number}",
                    "--workers=1",
                    "--no-control-socket",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[number],
                env=os.environ | {"PULP_SETTINGS": str(settings)},
            )

    def ask(self, path: str, **headers: str) -> http.client.HTTPResponse:
        """Send the request of a client, and return the reply once it has begun."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=SECONDS)
        connection.request("GET", path, headers={**headers, "Connection": "close"})
        return connection.getresponse()

    def get(self, path: str) -> tuple[bytes, bool]:
        """Return what a client gets, and whether it is complete as far as the client can tell."""
        got = bytearray()
        with closing(self.ask(path)) as reply:
            assert reply.status == 200, self._log.read_text()
            try:
                while data := reply.read1():
                    got += data
            except (http.client.IncompleteRead, ConnectionResetError):
                return bytes(got), False
        return bytes(got), True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self._process.terminate()
        try:
            assert self._process.wait(SECONDS) == 0, self._log.read_text()
        finally:
            self._process.kill()


class Published(NamedTuple):
    """An on-demand file that nobody has asked for yet.

    Attributes:
        content: What it is.
        server: Its source. The file is ``/file``.
        path: Where clients find it.
        row: Its ContentArtifact.
    """

    content: bytes
    server: FileServer
    path: str
    row: Any

    def saved(self) -> bytes | None:
        """Return what the content app has saved."""
        self.row.refresh_from_db()
        if self.row.artifact is None:
            return None
        assert self.row.artifact.sha256 == sha256(self.content).hexdigest()
        with self.row.artifact.file.open() as file:
            return file.read()

    def has(self, url: str, remote: Any) -> None:
        """Make a URL its source."""
        from pulpcore.plugin.models import RemoteArtifact

        RemoteArtifact.objects.create(
            content_artifact=self.row,
            remote=remote,
            url=url,
            size=len(self.content),
            sha256=sha256(self.content).hexdigest(),
        )


@pytest.fixture(scope="module")
def app(pulp: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """Run the content app, which the tests of this module share."""
    with App(pulp / HOOKED, tmp_path_factory.mktemp("content")) as made:
        yield made
    assert list(made.folder.iterdir()) == []


@pytest.fixture
def published(
    domain: Any, file_server: Callable[..., FileServer], synced: Callable[..., tuple[Any, Any]]
) -> Callable[..., Published]:
    """Return `published(size, **fields)`: a new file, whose remote has these fields."""

    def publish(size: int = SIZE, **fields: Any) -> Published:
        from pulp_file.app.models import FileContent, FileDistribution, FilePublication

        from pulpcore.plugin.models import ContentArtifact

        content = os.urandom(size)
        server = file_server({"/file": File(content, etag='"1"')})
        fields = {"policy": "on_demand", "max_retries": 1, **fields}
        remote, repository = synced(server, **fields)
        unit = FileContent.objects.create(relative_path="file", digest=sha256(content).hexdigest())
        row = ContentArtifact.objects.create(content=unit, relative_path="file")
        with repository.new_version() as version:
            version.add_content(FileContent.objects.filter(pk=unit.pk))
        publication = FilePublication.objects.create(
            repository_version=version, pass_through=True, complete=True
        )
        name = uuid4().hex
        FileDistribution.objects.create(name=name, base_path=name, publication=publication)
        made = Published(content, server, f"/pulp/content/{domain.name}/{name}/file", row)
        made.has(server.url("/file"), remote)
        return made

    return publish


@pytest.mark.parametrize("kind", [CutAfter, ResetAfter])
def test_breaks(app, published, kind) -> None:
    """Although the source breaks off, a client gets each byte once, and so does the storage."""
    file = published()
    file.server.faults = lambda index, request: kind(200_000) if index < 4 else None
    assert app.get(file.path) == (file.content, True)
    assert file.saved() == file.content
    count = file.server.count
    assert count > 4
    # The next client gets it from the storage.
    assert app.get(file.path) == (file.content, True)
    assert file.server.count == count


def test_two_clients(app, published) -> None:
    """Two clients that ask at once get the same bytes, which are saved once."""
    file = published()
    file.server.faults = lambda index, request: CutAfter(200_000) if index < 4 else None
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(app.get, [file.path] * 2))
    assert results == [(file.content, True)] * 2
    assert file.saved() == file.content


def test_range(app, published) -> None:
    """A client that asks for a range gets it while the whole file is saved."""
    file = published()
    file.server.faults = lambda index, request: CutAfter(200_000) if index < 3 else None
    with closing(app.ask(file.path, Range="bytes=300000-699999")) as reply:
        assert reply.status == 206
        assert reply.read() == file.content[300_000:700_000]
        # The rest comes when the client has its part.
        end = time.monotonic() + SECONDS
        while file.saved() is None and time.monotonic() < end:
            time.sleep(0.02)
    assert file.saved() == file.content


def test_streamed(app, published) -> None:
    """With the policy "streamed", nothing is saved."""
    file = published(policy="streamed")
    file.server.faults = {0: CutAfter(200_000)}
    assert app.get(file.path) == (file.content, True)
    assert file.saved() is None


@pytest.mark.parametrize("case", ["dead", "changed", "no ranges"])
def test_broken(app, published, case) -> None:
    """If the source can't go on, the client's transfer breaks, and nothing is saved.

    When the source is well again the next client gets the whole file.
    """
    file = published()
    good = file.server.files["/file"]

    def fault(index, request):
        if index == 0:
            return CutAfter(400_000)
        if case == "dead":
            return Status(503)
        if case == "changed":
            file.server.files["/file"] = File(os.urandom(SIZE), etag='"2"')
        return None

    if case == "no ranges":
        file.server.files["/file"] = File(file.content, etag='"1"', ranges=False)
    file.server.faults = fault
    got, complete = app.get(file.path)
    assert not complete
    assert got == file.content[: len(got)]
    assert file.saved() is None
    file.server.faults = {}
    file.server.files["/file"] = good
    assert app.get(file.path) == (file.content, True)
    assert file.saved() == file.content


def test_wrong_digest(app, published) -> None:
    """A file with a wrong digest is never completed, and its source isn't asked again."""
    file = published()
    file.server.files["/file"] = File(os.urandom(SIZE), etag='"2"')
    assert not app.get(file.path)[1]
    assert file.saved() is None
    assert app.ask(file.path).status == 404
    assert file.server.count == 1


def test_client_leaves(app, published) -> None:
    """When a client leaves, the download ends with its connection."""
    file = published(16_000_000)
    with closing(app.ask(file.path)) as reply:
        assert reply.read(100_000) == file.content[:100_000]
    file.server.until(lambda: file.server.open_connections == 0, SECONDS)
    assert file.saved() is None
    assert app.get(file.path) == (file.content, True)
    assert file.saved() == file.content


def test_pull_through(app, domain, file_server, synced) -> None:
    """A file that only the remote knows is streamed and saved as new content, though it breaks."""
    from pulp_file.app.models import FileDistribution

    from pulpcore.plugin.models import ContentArtifact

    content = os.urandom(SIZE)
    server = file_server({"/file": File(content, etag='"1"'), "/dead": content})
    remote, _ = synced(server, url=server.url("/"), policy="on_demand", max_retries=1)
    name = uuid4().hex
    FileDistribution.objects.create(name=name, base_path=name, remote=remote)
    path = f"/pulp/content/{domain.name}/{name}"

    def fault(index, request):
        if request.path == "/dead":
            return CutAfter(400_000)
        return CutAfter(200_000) if index < 3 else None

    server.faults = fault
    assert app.get(f"{path}/file") == (content, True)
    assert server.count > 3
    saved = ContentArtifact.objects.filter(remoteartifact__remote=remote)
    with saved.get().artifact.file.open() as file:
        assert file.read() == content
    count = server.count
    assert app.get(f"{path}/file") == (content, True)
    assert server.count == count

    # No digest is known here, and the remote has no validator.
    got, complete = app.get(f"{path}/dead")
    assert not complete
    assert got == content[: len(got)]
    with closing(app.ask(f"{path}/missing")) as reply:
        assert reply.status == 404
    assert saved.count() == 1


@pytest.mark.parametrize("fault", ["refused", Status(404), Status(503), CutAfter(0, whole=True)])
def test_alternate_content_source(app, published, file_server, synced, fault) -> None:
    """If an alternate source fails before its first byte, the next source is asked."""
    from pulp_file.app.models import FileAlternateContentSource

    file = published()
    other = file_server({OTHER: file.content}, faults=lambda index, request: fault)
    alternate, _ = synced(other, max_retries=1)
    FileAlternateContentSource.objects.create(name=uuid4().hex, remote=alternate)
    file.has(f"http://{HOST}:1/" if fault == "refused" else other.url(OTHER), alternate)
    assert app.get(file.path) == (file.content, True)
    assert file.saved() == file.content
    assert other.count > 0 or fault == "refused"


def test_alternate_content_source_breaks(app, published, file_server, synced) -> None:
    """Once a source has sent data, no other is asked: a client never gets parts of two."""
    from pulp_file.app.models import FileAlternateContentSource

    file = published()
    other = file_server({OTHER: File(file.content, etag='"1"')})
    other.faults = lambda index, request: Status(503) if index else CutAfter(400_000)
    alternate, _ = synced(other, max_retries=1)
    FileAlternateContentSource.objects.create(name=uuid4().hex, remote=alternate)
    file.has(other.url(OTHER), alternate)
    got, complete = app.get(file.path)
    assert not complete
    assert got == file.content[: len(got)]
    assert file.saved() is None
    assert file.server.count == 0


@pytest.fixture
def upstream(
    domain: Any, pulp: Path, task: Any, workdir: Path
) -> Callable[[dict[str, bytes]], Any]:
    """Return `upstream(files)`, which distributes files in a new domain, and returns that.

    The distribution has the name of the domain.
    """

    def distribute(files: dict[str, bytes]) -> Any:
        from pulp_file.app.models import FileContent, FileDistribution, FileRepository

        from pulpcore.app.contexts import with_domain
        from pulpcore.plugin.models import Artifact, ContentArtifact, Domain

        name = uuid4().hex
        other = Domain.objects.create(
            name=name,
            storage_class=domain.storage_class,
            storage_settings={"location": str(pulp / "media" / name)},
        )
        with with_domain(other):
            for path, content in files.items():
                (workdir / path).write_bytes(content)
                artifact = Artifact.init_and_validate(str(workdir / path))
                artifact.save()
                unit = FileContent.objects.create(relative_path=path, digest=artifact.sha256)
                ContentArtifact.objects.create(content=unit, relative_path=path, artifact=artifact)
            repository = FileRepository.objects.create(name=name, autopublish=True)
            with repository.new_version() as version:
                version.add_content(FileContent.objects.filter(pulp_domain=other))
            FileDistribution.objects.create(name=name, base_path=name, repository=repository)
        return other

    return distribute


def test_replication(app, domain, pulp, upstream, work, running, tmp_path, monkeypatch) -> None:
    """A Pulp replicates another one, though each connection to it breaks within a file.

    The other one is a domain of this Pulp, with its API.
    """
    from django.contrib.auth import get_user_model
    from pulp_file.app.models import FileDistribution

    from pulpcore.app.models import UpstreamPulp
    from pulpcore.app.tasks import replicate_distributions
    from pulpcore.plugin.models import ContentArtifact, TaskGroup
    from pulpcore.plugin.tasking import dispatch

    files = {f"{number}": os.urandom(600_000) for number in range(4)}
    other = upstream(files)
    relay = running(Relay, app.port, lambda index: CutAfter(300_000 + 100_000 * (index % 3)))
    settings = pulp / "api.py"
    settings.write_text(
        (pulp / "settings.py").read_text() + f'CONTENT_ORIGIN = "http://{HOST}:{relay.port}"\n'
    )
    monkeypatch.setenv("PULP_SETTINGS", str(pulp / HOOKED))
    get_user_model().objects.create_superuser(other.name, password=other.name)
    with App(settings, tmp_path, "pulpcore-api") as api:
        server = UpstreamPulp.objects.create(
            name=other.name,
            base_url=f"http://{HOST}:{api.port}",
            api_root="/pulp/",
            domain=other.name,
            username=other.name,
            password=other.name,
            max_retries=5,
        )
        group = TaskGroup.objects.create(description="replication")
        arguments = {"server_pk": server.pk}
        dispatch(replicate_distributions, kwargs=arguments, task_group=group)
        work()
    assert [task.error for task in group.tasks.exclude(state="completed")] == []
    replica = FileDistribution.objects.get(name=other.name, pulp_domain=domain).repository_version
    found = {}
    for row in ContentArtifact.objects.filter(content__in=replica.content):
        with row.artifact.file.open() as file:
            found[row.relative_path] = file.read()
    assert found == files
    assert relay.connections > len(files)
