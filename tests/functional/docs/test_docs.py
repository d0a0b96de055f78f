"""The examples of the documentation run, and print the output that the pages show."""

import ast
import hashlib
import json
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace
from typing import NamedTuple
from urllib.parse import urlsplit
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from servers.files import CutAfter, File, Status
from servers.message import basic
from tqdm import tqdm

from pulpcore.plugin.download import futures
from pulpcore.plugin.download.futures import Event, FileWriter, HttpDownload
from pulpcore.plugin.download.futures.cli import app
from pulpcore.plugin.download.futures.context import Context

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"
SOURCE = ROOT / "src"
PAGES = [*sorted(DOCS.rglob("*.rst")), ROOT / "CHANGELOG.rst", ROOT / "CONTRIBUTING.rst"]
TUTORIAL = "http://127.0.0.1:8000"
SITE = "https://example.org"
PROXY = "proxy.example.org:3128"
VAULT = "https://vault.example.org"
ARCHIVE = "ftp://ftp.example.org"

# The directives that pages may use. Any other directive might show code that no test runs.
DIRECTIVES = {
    *("autoclass", "autodata", "autofunction", "automethod", "automodule"),
    *("code-block", "contents", "include", "literalinclude", "raw", "toctree"),
    *("figure", "image", "list-table", "note", "seealso", "tip", "warning"),
    *("deprecated", "versionadded", "versionchanged"),
}
LANGUAGES = {"python", "output", "console"}

BLOCK = re.compile(
    r"^\.\. code-block:: (?P<language>\w+)\n\n(?P<code>(?: {4}.*\n|\n)+)", re.MULTILINE
)
# A slow command prints progress lines, which have the number of files if there are several.
PROGRESS = re.compile(
    r"^\S+: (\d+ of \d+ files, )?[\d.]+ (bytes|[kMG]B)( of [\d.]+ (bytes|[kMG]B))?, .*/s.*\n",
    re.MULTILINE,
)


class Example(NamedTuple):
    """A code block, and its expected output from the output block that follows it."""

    page: str
    line: int
    language: str
    code: str
    output: str


def read(page: Path) -> list[Example]:
    """Return the examples of a page, in order."""
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
    """Return the examples in one language as test parameters."""
    return [
        pytest.param(example, id=f"{example.page}-{example.line}")
        for page in PAGES
        for example in read(page)
        if example.language == language and (page.stem == "tutorial") == tutorial
    ]


# The files of the server.


def sha256(content: bytes) -> str:
    """Return the SHA-256 digest of bytes (hex)."""
    return hashlib.sha256(content).hexdigest()


ISOS = {name: f"{name}\n".encode() * 100_000 for name in ("bear", "lion", "tiger", "wolf")}
LISTED = ("bear", "lion", "tiger")
MANIFEST = "".join(
    f"isos/{name}.iso,{sha256(ISOS[name])},{len(ISOS[name])}\n" for name in LISTED
).encode()
FILES = {
    "/": b"<title>The zoo</title>",
    **runpy.run_path(str(DOCS / "zoo.py"))["STREAMS"],
    **{f"/isos/{name}.iso": content for name, content in ISOS.items()},
    **{f"/private/{number}": b"secret" for number in range(20)},
    "/v2/animals/blobs/tiger": b"a layer",
    "/PULP_MANIFEST": MANIFEST,
    "/hostile/PULP_MANIFEST": f"../.bashrc,{sha256(b'')},0\nlion.iso\n".encode(),
    "/mirror/eagle.iso": b"eagle",
    "/busy/tiger.iso": ISOS["tiger"],
    "/broken/tiger.iso": File(ISOS["tiger"], etag='"1"'),
    "/broken/lion.iso": ISOS["lion"],
    "/birds/eagle.txt": File(b"Kyah!", last_modified="Sun, 06 Nov 1994 08:49:37 GMT"),
    "/birds/falcon.txt": File(b"Kek-kek-kek!", etag='W/"1"'),
    "/birds/owl.txt": File(b"Tu-whit, tu-whoo!", etag='"2"'),
}


class Behaviour:
    """The server's responses that are not files: faults, tokens, an echo of the request headers."""

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
            case "v2" if request.header("Authorization") != "Bearer abc":
                realm = f"http://{request.header('Host')}/token"
                scope = "repository:animals:pull"
                challenge = f'Bearer realm="{realm}",service="zoo",scope="{scope}"'
                return Status(401, {"WWW-Authenticate": challenge})
            case "token":
                assert request.header("Authorization") == basic("me", "my password")
                return Status(200, body=json.dumps({"token": "abc"}).encode())
            case "echo":
                fields = [f"{name}: {value}" for name, value in request.headers if name != "Host"]
                body = "\n".join(sorted(fields)).encode()
                return Status(200, {"Content-Type": "text/plain"}, body)
        return None


class Folder(Mapping):
    """Maps the path of a request to a file in the folder that the tutorial publishes."""

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
    monkeypatch.setattr(tqdm, "monitor_interval", 0)  # or it leaves a thread
    return tmp_path


@pytest.fixture
def site(file_server):
    """The server whose name on the pages is example.org."""
    return file_server(FILES, faults=Behaviour())


@pytest.fixture
def others(request, work) -> dict[str, str]:
    """Start the other servers that the example uses; map their names on the page to real addresses.

    The certificates of the vault are copied into the working directory, under the file names of the
    page.
    """
    example = request.node.callspec.params["example"]
    places = {}
    if PROXY in example.code:
        proxy = request.getfixturevalue("proxy")(user=("ann", "secret"))
        places[PROXY] = f"127.0.0.1:{proxy.port}"
    if VAULT in example.code:
        tls = request.getfixturevalue("tls")
        vault = request.getfixturevalue("file_server")(FILES, tls=tls.server(client_ca=tls.ca))
        places[VAULT] = vault.url("")
        for path in (tls.ca, tls.client.certificate, tls.client.key):
            (work / path.name).write_bytes(path.read_bytes())
    if ARCHIVE in example.code:
        places[ARCHIVE] = request.getfixturevalue("archive").url("")
    return places


@pytest.fixture
def archive(ftp_server, tls, work, tmp_path_factory):
    """The FTP server whose name on the pages is ftp.example.org; it requires TLS."""
    from servers.ftp import Security  # few tests need pyftpdlib

    folder = tmp_path_factory.mktemp("archive")
    (folder / "isos").mkdir()
    (folder / "isos" / "tiger.iso").write_bytes(ISOS["tiger"])
    (work / "ca.pem").write_bytes(tls.ca.read_bytes())
    return ftp_server(folder, users={"me": "my password"}, security=Security(tls.good))


@pytest.fixture
def zoo(work) -> Iterator[SimpleNamespace]:
    """The demo server that readers start, ``docs/zoo.py``."""
    with subprocess.Popen(
        [sys.executable, DOCS / "zoo.py", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            base = process.stdout.readline().strip()
            yield SimpleNamespace(url=lambda path: base + path)
        finally:
            process.kill()


def execute(example: Example, base: str, server, places: Mapping[str, str] = {}) -> None:
    """Run an example as a program, with the base of its URLs replaced by that of the server."""
    code = example.code.replace(base, server.url("")).replace(TUTORIAL, server.url(""))
    for name, place in places.items():
        code = code.replace(name, place)
    if "__main__" in code:
        # The example starts processes that import its module, so it must be a file.
        Path("example.py").write_text(code)
        run = subprocess.run(
            [sys.executable, "example.py"], capture_output=True, text=True, timeout=50, check=False
        )
        assert run.returncode == 0, run.stderr
        print(run.stdout, end="")  # noqa: T201 - the test captures stdout
        return
    # Leading empty lines make tracebacks name the line number of the page.
    program = compile("\n" * (example.line + 1) + code, f"{example.page}.rst", "exec")
    exec(program, {"__name__": "__main__"})


def normalized(output: str, base: str, server) -> str:
    """Remove everything from the output that differs between runs: progress, rates, times."""
    output = PROGRESS.sub("", output.replace(server.url(""), base))
    output = re.sub(r"\b[\d.]+ (bytes|[kMG]B)/s", "RATE", output)
    return re.sub(r"\b\d+\.\d s\b", "TIME", output)


def in_order(example: Example, output: str) -> str:
    """Sort the lines of the example that prints downloads in the order in which they end."""
    return "".join(sorted(output.splitlines(True))) if example.page == "index" else output


def literals(text: str) -> Iterator[str]:
    """Yield the literal blocks of a text, which have no language."""
    for match in re.finditer(r"::\n\n((?:(?: +.*)?\n)+)", text):
        if not text[: match.start()].rpartition("\n")[2].lstrip().startswith(".. "):
            yield dedent(match[1])


def is_program(text: str) -> bool:
    """Return whether a text is a Python program and not, for example, a shell command."""
    try:
        body = ast.parse(text).body
    except SyntaxError:
        return False
    return any(not isinstance(node, ast.Expr) or isinstance(node.value, ast.Call) for node in body)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_nothing_is_missed(page: Path) -> None:
    """Each code block of a page has a language and a form that these tests recognize and run."""
    text = page.read_text()
    assert set(re.findall(r"^ *\.\. ([\w-]+)::", text, re.MULTILINE)) <= DIRECTIVES
    found = [match["language"] for match in BLOCK.finditer(text)]
    assert len(found) == text.count(".. code-block::")
    assert set(found) <= LANGUAGES
    assert not re.search(r"^ *>>>", text, re.MULTILINE)
    assert [block for block in literals(text) if is_program(block)] == []
    # tests/pulpcore runs the included files, which are all in this folder.
    assert all(name.startswith("examples/") for name in re.findall("literalinclude:: (.*)", text))
    # The theme shows an error above a table of contents that doesn't say so.
    assert text.count(".. contents::") == text.count(":class: this-will-duplicate-information")
    assert text.count(".. raw::") == text.count(".. raw:: html\n   :file: life.svg\n")


def test_what_would_be_missed() -> None:
    """`is_program` recognizes Python programs, and `literals` finds every literal block."""
    assert is_program("download()\n")
    assert is_program("with batch:\n    pass\n")
    assert not is_program("mkdir /tmp/tutorial\n")
    assert not is_program("DownloadError\n├── DownloadFailed\n")
    assert list(literals("Look::\n\n    x = 1\n\n    y = 2\n\nNo more.\n")) == [
        "x = 1\n\ny = 2\n\n"
    ]
    assert list(literals(".. note::\n\n   Text.\n")) == []


def docstrings() -> Iterator[object]:
    """Yield the programs in the docstrings of the source as test parameters."""
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                for block in literals((ast.get_docstring(node) or "") + "\n"):
                    if is_program(block):
                        yield pytest.param(block, id=f"{path.stem}-{getattr(node, 'name', '')}")


@pytest.mark.parametrize("code", [*docstrings()])
def test_docstring(code: str, site, work) -> None:
    """The example in a docstring runs, if the names that it assumes are defined."""
    url = site.url("/isos/tiger.iso")
    context = Context()
    names = {
        **{name: getattr(futures, name) for name in futures.__all__},
        "context": context,
        "downloads": [HttpDownload(url, FileWriter("tiger.iso"))],
        "fetch_token": lambda: "abc",
    }
    exec(code, names)
    assert (work / "tiger.iso").exists() or context.token == "abc"


def test_picture() -> None:
    """The diagram life.svg names each event, has a text description, and fits the page's theme.

    Its lines and text take the text colour of the page, so that they are visible in the light and
    in the dark theme.
    """
    picture = (DOCS / "life.svg").read_text()
    root = ElementTree.fromstring(picture)
    texts = {"".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")}
    named = set(re.findall(r"\b[A-Z]{4,}\b", " ".join(texts)))
    assert named == {value for name, value in vars(Event).items() if name == value}
    described = root.find("{http://www.w3.org/2000/svg}desc")
    assert named <= set(re.findall(r"\b[A-Z]{4,}\b", described.text))
    assert root.get("role") == "img"
    assert "text { fill: currentColor" in picture


def test_links_outside() -> None:
    """Each link to another site uses https and names a real host, not one of the examples."""
    links = [
        (page.name, link)
        for page in [*PAGES, ROOT / "README.rst"]
        for link in re.findall(r"<(\w+://[^>]+)>`_", page.read_text())
    ]
    assert links
    for name, link in links:
        parts = urlsplit(link)
        assert parts.scheme == "https", (name, link)
        assert "." in parts.netloc, (name, link)
        assert "example" not in parts.netloc, (name, link)


def test_included() -> None:
    """The pages include every file of docs/examples and no other file. Other tests run them."""
    included = {
        name
        for page in DOCS.glob("*.rst")
        for name in re.findall(r"\.\. literalinclude:: (\S+)", page.read_text())
    }
    assert included == {str(path.relative_to(DOCS)) for path in DOCS.glob("examples/*.py")}


@pytest.mark.parametrize("example", only("python"))
def test_example(example, site, work, others, capsys) -> None:
    """Each example is a complete program and prints the output that the page shows."""
    execute(example, SITE, site, others)
    output = in_order(example, capsys.readouterr().out)
    if example.output:
        assert normalized(output, SITE, site) == normalized(example.output, SITE, site)


@pytest.mark.parametrize(
    "example",
    [
        param
        for param in only("python")
        if not any(host in param.values[0].code for host in (PROXY, VAULT, ARCHIVE))
    ],
)
def test_example_with_the_zoo(example, zoo, capsys) -> None:
    """Each example prints the same output with the demo server that readers start."""
    execute(example, SITE, zoo)
    output = in_order(example, capsys.readouterr().out)
    if example.output:
        assert normalized(output, SITE, zoo) == normalized(example.output, SITE, zoo)


def test_tutorial(file_server, work, capsys) -> None:
    """The programs of the tutorial, run in order, print the output that the page shows.

    The sync downloads only missing and damaged files. It refuses a path that leaves the mirror.
    """
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
    """With each recipe for tokens, 20 downloads on 4 threads request only one token."""
    recipes = [param.values[0] for param in only("python")]
    for number, recipe in enumerate([each for each in recipes if "/token" in each.code], start=1):
        execute(recipe, SITE, site)
        assert site.paths.count("/token") == number
    assert number == 2
    assert site.count <= number * (20 + 4 + 1)


@pytest.mark.parametrize("example", only("console"))
def test_command_line(example, site, work) -> None:
    """Each command prints the output that the page shows, and fails only if the page says so.

    `cat` shows a file that the next command reads.
    """
    for step in example.code.removeprefix("$ ").split("\n$ "):
        command, _, expected = step.partition("\n")
        if command.startswith("cat "):
            Path(command[4:]).write_text(expected.replace(SITE, site.url("")) + "\n")
            continue
        _, *arguments = shlex.split(command.replace(SITE, site.url("")))
        result = CliRunner().invoke(app.cli, arguments)
        assert isinstance(result.exception, SystemExit | None), result.exception
        assert result.exit_code == ("failed:" in expected)
        expected = normalized(expected.rstrip("\n") + "\n", SITE, site)
        assert normalized(result.output, SITE, site) == expected


def test_options_are_documented() -> None:
    """The page of the command line documents exactly the options that the program has."""
    text = (DOCS / "cli.rst").read_text()
    documented = set(re.findall(r"(?<![\w-])--?[a-zA-Z][a-z0-9-]*", text))
    there = {"-h", "--help", "--version"}
    for command in app.cli.commands.values():
        for parameter in command.params:
            there.update(name for name in parameter.opts if name.startswith("-"))
    assert documented == there
