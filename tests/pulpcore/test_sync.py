"""Tests of the documentation's sync example, step by step in the test's own process."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers.files import CutAfter, Status


def unique(count: int, size: int = 3000) -> dict[str, bytes]:
    """Make files whose content no other test has, some in folders."""
    return {f"{number % 3}/file {number}.iso": os.urandom(size) for number in range(count)}


def stored(version: Any) -> dict[str, bytes]:
    """Return the files that Pulp would publish of a repository version, by path."""
    from pulpcore.plugin.models import ContentArtifact

    found = {}
    for content_artifact in ContentArtifact.objects.filter(content__in=version.content):
        with content_artifact.artifact.file.open() as file:
            found[content_artifact.relative_path] = file.read()
    return found


def models(domain: Any) -> Iterator[Any]:
    """Return all that a sync saves, as far as it belongs to a domain."""
    from pulp_file.app.models import FileContent

    from pulpcore.plugin.models import Artifact, RemoteArtifact

    for model in (Artifact, FileContent, RemoteArtifact):
        yield from model.objects.filter(pulp_domain=domain)


def leftovers(folder: Path) -> list[str]:
    """Return the files that are left in a folder."""
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]


def test_facts(example, task, site, synced) -> None:
    """The facts of a download equal what pulpcore computes of the file, for exactly its digests."""
    from pulp_file.manifest import Manifest

    from pulpcore.plugin.download.futures import Batch, Factory
    from pulpcore.plugin.models import Artifact

    server = site({**unique(5), "empty": b""})
    remote, _ = synced(server)
    factory = Factory(remote)
    entries = Manifest.parse(server.files["/PULP_MANIFEST"].decode())
    count = 0
    with Batch(example.downloads(factory, entries)) as batch:
        for plan in batch():
            download = plan.result()
            facts = download.attachment[-1].facts()
            assert set(facts) == {"size", *Artifact.DIGEST_FIELDS}
            expected = Artifact.init_and_validate(str(download.writer.path))
            assert facts == {name: getattr(expected, name) for name in facts}
            content = example.save(download)
            artifact = content.contentartifact_set.get().artifact
            assert facts == {name: getattr(artifact, name) for name in facts}
            # The file was moved into the storage.
            assert not Path(download.writer.path).exists()
            count += 1
    assert count == 6


def test_sync(example, task, workdir, site, synced) -> None:
    """A sync stores the published files in a repository version. A second one downloads nothing."""
    from pulpcore.plugin.models import RemoteArtifact

    files = unique(40)
    server = site(files)
    remote, repository = synced(server)
    arguments = remote.pk, repository.pk
    assert example.synchronize(*arguments) == {"failures": []}
    version = repository.latest_version()
    assert version.number == 1
    assert stored(version) == files
    assert {row.url for row in RemoteArtifact.objects.filter(remote=remote)} == {
        server.url(path) for path in server.files if path != "/PULP_MANIFEST"
    }
    assert leftovers(workdir) == []
    first = server.count
    assert first == 41

    assert example.synchronize(*arguments) == {"failures": []}
    assert server.count == first + 1
    assert repository.latest_version() == version


def test_same_content(example, task, site, synced) -> None:
    """In a sync, files with the same content share one artifact and are separate content units."""
    from pulpcore.plugin.models import Artifact

    content = os.urandom(1000)
    files = {f"{number}": content for number in range(10)}
    remote, repository = synced(site(files))
    assert example.synchronize(remote.pk, repository.pk) == {"failures": []}
    version = repository.latest_version()
    assert stored(version) == files
    assert Artifact.objects.filter(content__in=version.content).distinct().count() == 1


def test_progress(example, task, site, synced) -> None:
    """The progress report of a sync counts the downloaded files and their total."""
    files = {**unique(7), "missing": None}
    remote, repository = synced(site(files))
    example.synchronize(remote.pk, repository.pk)
    report = task.progress_reports.get()
    assert (report.state, report.done, report.total) == ("completed", 7, 8)


def test_failures(example, task, workdir, site, synced) -> None:
    """A sync reports each missing, truncated or wrong file with its URL and saves the others."""
    files = unique(20)
    server = site({**files, "missing": None, "cut": b"abcdef", "wrong": b"right", "long": b"12345"})
    server.files |= {"/wrong": b"wrong", "/long": b"123456"}

    def fault(index, request):
        return CutAfter(3) if request.path == "/cut" else None

    server.faults = fault
    remote, repository = synced(server, max_retries=0)
    failures = sorted(example.synchronize(remote.pk, repository.pk)["failures"])
    for name, failure in zip(("cut", "long", "missing", "wrong"), failures, strict=True):
        assert server.url(f"/{name}") in failure
    assert stored(repository.latest_version()) == files
    assert leftovers(workdir) == []


def test_domain(example, domain, task, workdir, site, synced) -> None:
    """Models that the generator of a sync makes get the task's domain, and so does all it saves.

    Handlers, which run in threads of the pool, see the domain, too.
    """
    from pulp_file.manifest import Manifest

    from pulpcore.plugin.download.futures import Batch, Event, Factory
    from pulpcore.plugin.models import Artifact
    from pulpcore.plugin.util import get_domain_pk

    server = site(unique(200, size=100))
    remote, _ = synced(server)
    seen = []

    def note(event):
        seen.append(get_domain_pk())

    def downloads():
        entries = Manifest.parse(server.files["/PULP_MANIFEST"].decode())
        for download in example.downloads(Factory(remote), entries):
            content, remote_artifact, _ = download.attachment
            seen.extend((content.pulp_domain_id, content._pulp_domain_id))
            seen.extend((remote_artifact.pulp_domain_id, Artifact().pulp_domain_id))
            download.register(Event.FETCHED, note)
            yield download

    with Batch(downloads(), concurrent=16, backlog=32) as batch:
        contents = [example.save(plan.result()).pk for plan in batch()]
    assert len(contents) == 200
    assert set(seen) == {domain.pk}
    assert len(seen) >= 5 * 200
    assert len(list(models(domain))) == 3 * 200


def test_two_domains(example, pulp, domain, task, site, synced) -> None:
    """Syncing the same files in another domain makes other models in a separate storage."""
    from pulpcore.app.contexts import with_domain
    from pulpcore.plugin.models import Artifact
    from pulpcore.plugin.util import get_default_domain

    files = unique(3)
    server = site(files)
    artifacts = set()
    for current in (get_default_domain(), domain):
        with with_domain(current):
            remote, repository = synced(server)
            example.synchronize(remote.pk, repository.pk)
            version = repository.latest_version()
            assert stored(version) == files
            found = Artifact.objects.filter(content__in=version.content)
            assert {artifact.pulp_domain_id for artifact in found} == {current.pk}
            artifacts |= {artifact.pk for artifact in found}
    assert len(artifacts) == 2 * 3
    assert len(leftovers(pulp / "media" / domain.name)) == 3


def test_credentials(example, task, site, synced) -> None:
    """A sync sends the server the headers and the (encrypted at rest) credentials of the remote."""
    files = unique(2)
    server = site(files, user=("me", "my password"))
    remote, repository = synced(
        server,
        username="me",
        password="my password",
        headers=[{"X-Token": "abc"}],
        rate_limit=1000,
        total_timeout=60.0,
        sock_connect_timeout=10.0,
    )
    remote.refresh_from_db()
    assert example.synchronize(remote.pk, repository.pk) == {"failures": []}
    assert stored(repository.latest_version()) == files
    assert {request.header("X-Token") for request in server.requests} == {"abc"}


def test_manifest_fails(example, task, site, synced) -> None:
    """If the manifest can't be downloaded, the sync task fails with a Pulp error that says why."""
    from pulpcore.plugin.exceptions import SyncError

    server = site({}, user=("me", "my password"))
    remote, repository = synced(server, username="me", password="guessed")
    with pytest.raises(SyncError, match="401") as caught:
        example.synchronize(remote.pk, repository.pk)
    assert remote.url in str(caught.value)
    assert "guessed" not in str(caught.value)
    assert repository.latest_version().number == 0


def test_transient_failure(example, task, site, synced) -> None:
    """A sync retries when the server is busy, without reporting a failure."""
    files = unique(3)
    remote, repository = synced(site(files, faults={1: Status(503, {"Retry-After": "0"})}))
    assert example.synchronize(remote.pk, repository.pk) == {"failures": []}
    assert stored(repository.latest_version()) == files


def test_tls(example, task, site, synced, tls, pem) -> None:
    """The PEM texts of a remote suffice for a server with a private CA and client certificates."""
    files = unique(10)
    remote, repository = synced(
        site(files, tls=tls.server(client_ca=tls.ca)), download_concurrency=3, **pem
    )
    remote.refresh_from_db()
    assert remote.client_key.startswith("-----BEGIN")
    assert example.synchronize(remote.pk, repository.pk) == {"failures": []}
    assert stored(repository.latest_version()) == files


@pytest.mark.parametrize("lacking", [("ca_cert",), ("client_cert", "client_key")])
def test_tls_refused(example, task, site, synced, tls, pem, lacking) -> None:
    """A sync fails without the server's CA, and without the client certificate."""
    from pulpcore.plugin.exceptions import SyncError

    given = {name: text for name, text in pem.items() if name not in lacking}
    server = site({}, tls=tls.server(client_ca=tls.ca))
    remote, repository = synced(server, max_retries=0, **given)
    with pytest.raises(SyncError, match="certificate"):
        example.synchronize(remote.pk, repository.pk)


def test_tls_unverified(example, task, site, synced, tls) -> None:
    """A remote with TLS validation turned off syncs from a server with an unknown certificate."""
    files = unique(2)
    server = site(files, tls=tls.server(tls.self_signed))
    remote, repository = synced(server, tls_validation=False)
    assert example.synchronize(remote.pk, repository.pk) == {"failures": []}
    assert stored(repository.latest_version()) == files
