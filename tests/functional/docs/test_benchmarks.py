"""The benchmark runs with the peers that are installed; its figures are not checked."""

import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from servers import nginx

from benchmarks import bench, content, report, server
from benchmarks.job import Job
from benchmarks.works import OURS, PEERS, WORKS, Peer

DOCS = Path(__file__).resolve().parents[3] / "docs"


def tiny(work):
    """Return the benchmark with so little work that it ends at once."""
    return replace(
        work, files=min(work.files, 5), size=min(work.size, 3000), count=work.count and 50
    )


def run(work, rounds=1, only=()):
    """Run one benchmark with little work."""
    return bench.run([tiny(work)], rounds, lambda _: None, only)


@pytest.mark.timeout(600)  # starts up to nine interpreters, one after the other
@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.name)
def test_work(work) -> None:
    """Each installed peer completes each of its benchmarks, and the results are valid JSON."""
    results = json.loads(json.dumps(run(work)))
    (found,) = results["works"]
    there = [name for name in work.peers if not PEERS[name].missing]
    assert [peer["name"] for peer in found["peers"]] == there
    for peer in found["peers"]:
        (taken,) = peer["rounds"]
        assert taken["seconds"] > 0
        assert taken["cpu"] >= 0
        assert taken["memory"] >= 0
    measurable = [target for target in work.targets if set(target.peers) <= set(there)]
    assert [target["title"] for target in found["targets"]] == [t.title for t in measurable]
    assert all(target["median"] > 0 for target in found["targets"] if target["unit"] != "MiB")
    for text in (report.text(results), report.rst(results)):
        assert found["title"] in text
        assert PEERS[there[0]].title in text


@pytest.mark.timeout(600)  # as above
def test_rounds_are_in_turn(monkeypatch) -> None:
    """Each round runs each peer once, in the same order."""
    calls = []
    original = bench._call

    def call(function, job):
        calls.append(function)
        return original(function, job)

    monkeypatch.setattr(bench, "_call", call)
    results = run(WORKS[0], rounds=2, only=(OURS, "requests"))
    assert calls == [PEERS[OURS].run, PEERS["requests"].run] * 2
    assert "left out" not in report.text(results)


def test_embedded_server(monkeypatch) -> None:
    """Without nginx, the benchmark uses its embedded server, and the results say so."""
    monkeypatch.setattr(nginx, "find_nginx", lambda: None)
    results = run(WORKS[0], only=(OURS,))
    assert "embedded" in results["works"][0]["server"]


def test_large_files_of_the_embedded_server(tmp_path) -> None:
    """The embedded server sends a file that it doesn't cache in memory completely and unchanged."""
    root, target = tmp_path / "root", tmp_path / "target"
    root.mkdir()
    target.mkdir()
    files = content.make(root, 9 * content.BLOCK + 1, 2)
    with server.embedded(root) as serving:
        job = Job(serving.base, files, target, threads=2, count=0)
        bench._call(PEERS[OURS].run, job)
    bench._compare(job, root)


def test_pipelining_of_the_embedded_server(tmp_path) -> None:
    """The embedded server answers requests that come together, one after the other."""
    files = content.make(tmp_path, 3000, 2) + content.make(tmp_path, 2 * content.BLOCK, 1)
    bodies = [(tmp_path / file.path.lstrip("/")).read_bytes() for file in files]
    with server.embedded(tmp_path) as serving:
        host, _, port = serving.base.rpartition("/")[2].partition(":")
        with socket.create_connection((host, int(port)), timeout=20) as sock:
            sock.sendall(b"".join(f"GET {each.path} HTTP/1.1\r\n\r\n".encode() for each in files))
            with sock.makefile("rb") as replies:
                for body in bodies:
                    while replies.readline().strip():
                        pass
                    assert replies.read(len(body)) == body


@pytest.mark.parametrize("what", ["missing", "wrong", "more"])
def test_result_is_checked(tmp_path, what) -> None:
    """The benchmark raises if a peer leaves a missing, a wrong or an additional file."""
    root, target = tmp_path / "root", tmp_path / "target"
    root.mkdir()
    target.mkdir()
    files = content.make(root, 10, 2)
    job = Job("", files, target, threads=1, count=0)
    for file in files:
        (target / file.name).write_bytes((root / file.path.lstrip("/")).read_bytes())
    bench._compare(job, root)
    path = target / files[0].name
    if what == "missing":
        path.unlink()
    elif what == "wrong":
        path.write_bytes(bytes(10))
    else:
        (target / "more").touch()
    with pytest.raises(RuntimeError):
        bench._compare(job, root)


def test_peer_that_fails(monkeypatch, capfd) -> None:
    """If a peer fails, the benchmark ends with an error that names the peer."""
    monkeypatch.setitem(PEERS, OURS, Peer("bad", "ours:missing"))
    with pytest.raises(RuntimeError, match="ours:missing"):
        run(WORKS[0], only=(OURS,))
    assert "AttributeError" in capfd.readouterr().err


def test_targets() -> None:
    """Speed meets its target when it is high enough, memory when it is low enough."""
    targets = {(work.name, target.title): target for work in WORKS for target in work.targets}
    faster = targets["small", "speed of this library, by that of requests, ThreadPoolExecutor"]
    assert faster.measure({OURS: {"seconds": 1.0}, "requests": {"seconds": 3.0}}) == 3.0
    assert faster.is_met(2.2)
    assert not faster.is_met(2.1)
    memory = targets["flow", "this library, files removed: memory"]
    assert memory.is_met(memory.measure({"removed": {"memory": 48 * 1024**2}}))
    assert not memory.is_met(48.1)


def test_documented_tables() -> None:
    """The tables in docs/performance.inc are generated from docs/performance.json."""
    results = json.loads((DOCS / "performance.json").read_text())
    assert (DOCS / "performance.inc").read_text() == report.rst(results)
