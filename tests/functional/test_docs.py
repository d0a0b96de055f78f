"""The examples of the documentation: what it shows is what happens."""

import contextlib
import hashlib
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import dedent
from types import ModuleType, SimpleNamespace
from typing import NamedTuple

import pytest
from click.testing import CliRunner

from pulpcore.plugin.download.futures import DigestValidation
from pulpcore.plugin.download.futures.cli import app
from servers.files import CutAfter, File, Status
from servers.message import basic

DOCS = Path(__file__).resolve().parents[2] / "docs"
TUTORIAL = "http://127.0.0.1:8000"
SITE = "https://example.org"

BLOCK = re.compile(
    r"^\.\. code-block:: (?P<language>\w+)\n\n(?P<code>(?: {4}.*\n|\n)+)", re.MULTILINE
)
PROGRESS = re.compile(r"^(Downloading|Checking|\S+): \d+ of \d+ files, .*\n", re.MULTILINE)


class Example(NamedTuple):
    """A block of code, and what it prints according to the block of output that follows it."""

    page: str
    line: int
    language: str
    code: str
    output: str


def read(page: Path) -> list[Example]:
    """The examples of a page, in order."""
    text = page.read_text()
    examples: list[Example] = []
    end = 0
    for match in BLOCK.finditer(text):
        code = dedent(match["code"]).strip("\n") + "\n"
        if match["language"] == "output":
            assert not text[end : match.start()].strip(), f"{page.name}: output of no code"
            examples[-1] = examples[-1]._replace(output=code)
        else:
            line = text.count("\n", 0, match.start("code"))
            examples.append(Example(page.stem, line, match["language"], code, ""))
        end = match.end()
    return examples


def only(language: str, *, tutorial: bool = False) -> list[object]:
    """The examples in a language, each as the parameter of a test."""
    return [
        pytest.param(example, id=f"{example.page}-{example.line}")
        for page in sorted(DOCS.glob("*.rst"))
        for example in read(page)
        if example.language == language and (page.stem == "tutorial") == tutorial
    ]


# What the server has.


def sha256(content: bytes) -> str:
    """The digest of bytes (hex)."""
    return hashlib.sha256(content).hexdigest()


ISOS = {name: f"{name}\n".encode() * 100_000 for name in ("bear", "lion", "tiger", "wolf")}
LISTED = ("bear", "lion", "tiger")
MANIFEST = "".join(
    f"isos/{name}.iso,{sha256(ISOS[name])},{len(ISOS[name])}\n" for name in LISTED
).encode()
FILES = {
    **{f"/isos/{name}.iso": content for name, content in ISOS.items()},
    **{f"/private/{number}": b"secret" for number in range(20)},
    "/PULP_MANIFEST": MANIFEST,
    "/hostile/PULP_MANIFEST": f"../.bashrc,{sha256(b'')},0\nlion.iso\n".encode(),
    "/mirror/eagle.iso": b"eagle",
    "/busy/tiger.iso": ISOS["tiger"],
    "/broken/tiger.iso": File(ISOS["tiger"], etag='"1"'),
    "/broken/lion.iso": ISOS["lion"],
}


class Behaviour:
    """What the server does beside serving files: faults, tokens, an echo."""

    def __init__(self):
        self._seen = set()

    def __call__(self, index, request):
        """Return the fault for a request; see FileServer."""
        is_first = request.path not in self._seen
        self._seen.add(request.path)
        match request.path.split("/")[1]:
            case "busy" if is_first:
                return Status(503, {"Retry-After": "0"})
            case "broken" if is_first:
                return CutAfter(200_000)
            case "private" if request.header("Authorization") != "Bearer abc":
                return Status(401)
            case "token":
                assert request.header("Authorization") == basic("me", "my password")
                return Status(200, body=json.dumps({"token": "abc"}).encode())
            case "echo":
                fields = [f"{name}: {value}" for name, value in request.headers if name != "Host"]
                body = "\n".join(sorted(fields)).encode()
                return Status(200, {"Content-Type": "text/plain"}, body)
        return None


class Folder(Mapping):
    """The files of a folder, by the path in a request: what the tutorial publishes."""

    def __init__(self, root):
        self._root = root

    def __getitem__(self, path):
        try:
            return (self._root / path.removeprefix("/")).read_bytes()
        except OSError as error:
            raise KeyError(path) from error

    def __iter__(self):
        return iter(())

    def __len__(self):
        return 0


@pytest.fixture
def work(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PULP_FUTURES_PASSWORD", raising=False)
    return tmp_path


@pytest.fixture
def site(file_server):
    """The server that the pages call example.org."""
    return file_server(FILES, faults=Behaviour())


def execute(example: Example, base: str, server) -> None:
    """Run an example as a program, with the base of its URLs replaced by the server's."""
    code = example.code.replace(base, server.url(""))
    if "__main__" in code:
        # It starts processes that import it: so it must be a file, as it is for whoever uses it.
        Path("example.py").write_text(code)
        run = subprocess.run(
            [sys.executable, "example.py"], capture_output=True, text=True, timeout=50, check=False
        )
        assert run.returncode == 0, run.stderr
        print(run.stdout, end="")  # noqa: T201 - where the output of the others goes
        return
    # Padded, so that a traceback names the line of the page.
    program = compile("\n" * (example.line + 1) + code, f"{example.page}.rst", "exec")
    exec(program, {"__name__": "__main__"})


def normalized(output: str, base: str, server) -> str:
    """Output without what differs from run to run."""
    output = PROGRESS.sub("", output.replace(server.url(""), base))
    output = re.sub(r"\b[\d.]+ (bytes|[kMG]B)/s", "RATE", output)
    return re.sub(r"\b\d+\.\d s\b", "TIME", output)


def test_nothing_is_missed() -> None:
    """Each block of code of the pages is in a language that is run here, and in the usual form."""
    for page in DOCS.glob("*.rst"):
        text = page.read_text()
        blocks = re.findall(r"\.\. (?:code-block|code|sourcecode)::", text)
        found = [match["language"] for match in BLOCK.finditer(text)]
        assert len(found) == len(blocks), page.name
        assert set(found) <= {"python", "output", "console"}, page.name
        assert not re.search(r">>>|literalinclude|doctest|testcode", text), page.name


@pytest.mark.parametrize("example", only("python"))
def test_example(example, request, site, work, capsys) -> None:
    """Each example is a whole program, which prints what the page says."""
    if example.page == "pulp":
        request.getfixturevalue("pulp")
    execute(example, SITE, site)
    output = capsys.readouterr().out
    if example.output:
        assert normalized(output, SITE, site) == normalized(example.output, SITE, site)


def test_tutorial(file_server, work, capsys) -> None:
    """The programs of the tutorial, run one after the other, do what it says."""
    server = file_server(Folder(work / "published"))
    *others, sync = [param.values[0] for param in only("python", tutorial=True)]
    for example in others:
        execute(example, TUTORIAL, server)
        output = capsys.readouterr().out
        assert normalized(output, TUTORIAL, server) == normalized(example.output, TUTORIAL, server)
    assert not (work / "unicorn.iso").exists()

    def run() -> str:
        execute(sync, TUTORIAL, server)
        return capsys.readouterr().out

    assert run() == sync.output
    for name, content in ISOS.items():
        assert (work / "mirror" / "isos" / f"{name}.iso").read_bytes() == content
    assert run() == "downloaded: 0\n"
    (work / "mirror" / "isos" / "bear.iso").write_bytes(b"bear")
    assert run() == "downloaded: 1\n"
    manifest = work / "published" / "PULP_MANIFEST"
    manifest.write_text(f"../../escaped,{'0' * 64},0\n")
    assert "refused" in run()


def test_token_is_fetched_once(site, work) -> None:
    """With the recipe for tokens, 20 downloads on 4 threads get along with one token."""
    recipes = [param.values[0] for param in only("python")]
    (recipe,) = [example for example in recipes if "/token" in example.code]
    execute(recipe, SITE, site)
    assert site.paths.count("/token") == 1
    assert site.count <= 20 + 4 + 1


@pytest.mark.parametrize("example", only("console"))
def test_command_line(example, site, work) -> None:
    """Each call of the program that is shown prints what the page says."""
    for step in example.code.removeprefix("$ ").split("\n$ "):
        command, _, expected = step.partition("\n")
        _, *arguments = shlex.split(command.replace(SITE, site.url("")))
        result = CliRunner().invoke(app.cli, arguments)
        assert isinstance(result.exception, SystemExit | None), result.exception
        assert result.exit_code == ("failed:" in expected)
        expected = normalized(expected.rstrip("\n") + "\n", SITE, site)
        assert normalized(result.output, SITE, site) == expected


def test_options_are_documented() -> None:
    """The page of the command line names each option that there is, and no other."""
    text = (DOCS / "cli.rst").read_text()
    documented = set(re.findall(r"(?<![\w-])--?[a-z][a-z0-9-]*", text))
    there = {"-h", "--help"}
    for command in app.cli.commands.values():
        for parameter in command.params:
            there.update(name for name in parameter.opts if name.startswith("-"))
    assert documented == there


# Stand-ins for Django and pulpcore, just as far as the page about Pulp goes. How the library does
# beside the real ones is a matter of the integration tests.


class Model:
    """A model whose rows are in a list."""

    def __init__(self, **fields):
        self.__dict__.update(fields)

    def save(self):
        """Keep it."""
        self.rows.append(self)


class Query(list):
    """What Django's managers and querysets have in common."""

    def filter(self, **_):
        """Return all."""
        return self

    def get(self, *_, **__):
        """Return the first."""
        return self[0]

    def iterator(self):
        """Return all, one by one."""
        return iter(self)


class IntegrityError(Exception):
    """There is such a row."""


@pytest.fixture
def pulp(monkeypatch, site, capsys) -> Iterator[None]:
    """A Pulp with a remote that has two files of the same content, and one that is missing."""
    done: list[str] = []

    class Artifact(Model):
        DIGEST_FIELDS = DigestValidation.ALGORITHMS[:4]
        objects = rows = Query()

        def save(self):
            assert set(vars(self)) == {"file", "size", *self.DIGEST_FIELDS}
            assert Path(self.file).is_absolute()
            assert sha256(Path(self.file).read_bytes()) == self.sha256
            if any(row.sha256 == self.sha256 for row in self.rows):
                raise IntegrityError
            super().save()

        def q(self):
            return self.sha256

    class ContentArtifact(Model):
        rows = Query()

    def remote_artifact(number, name):
        facts = {"size": len(ISOS["lion"]), "sha256": sha256(ISOS["lion"]), "md5": None}
        url = site.url(f"/isos/{name}.iso")
        return SimpleNamespace(pk=number, url=url, content_artifact=ContentArtifact(), **facts)

    remote = SimpleNamespace(
        url=site.url("/PULP_MANIFEST"), download_concurrency=None, headers=None, ca_cert=None
    )
    offered = [remote_artifact(1, "lion"), remote_artifact(2, "lion"), remote_artifact(3, "eagle")]
    modules = {
        "django": {"setup": lambda: done.append("setup")},
        "django.db": {
            "IntegrityError": IntegrityError,
            "transaction": SimpleNamespace(atomic=contextlib.nullcontext),
        },
        "pulpcore.app.models": {"Artifact": Artifact},
        "pulpcore.plugin.models": {
            "Artifact": Artifact,
            "Remote": SimpleNamespace(objects=Query([remote])),
            "RemoteArtifact": SimpleNamespace(objects=Query(offered)),
        },
    }
    for name, attributes in modules.items():
        module = ModuleType(name)
        vars(module).update(attributes)
        monkeypatch.setitem(sys.modules, name, module)
    yield
    if done:
        assert [row.size for row in Artifact.rows] == [500_000]
        assert [row.artifact for row in ContentArtifact.rows] == list(Artifact.rows) * 2
        assert Path(Artifact.rows[0].file).exists()
