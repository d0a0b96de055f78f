"""Tests of the list of undocumented names of dependencies that the source uses."""

import ast
import ftplib
import re
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import requests.utils
import urllib3

from pulpcore.plugin.download.futures.net import dependencies
from pulpcore.plugin.download.futures.net.dependencies import NAMES, check, missing
from pulpcore.plugin.download.futures.pool.executors import Processes

SOURCE = Path(dependencies.__file__).parents[1]
PACKAGES = ("requests", "urllib3", "certifi", "socks")

# The names that the documentation of requests, urllib3 and certifi describes.
DOCUMENTED = {
    *(
        "certifi.where",
        "certifi.contents",
        "requests.Response",
        "requests.Session",
        "requests.PreparedRequest",
    ),
    *("requests.RequestException", "requests.ConnectionError", "requests.ConnectTimeout"),
    *("requests.HTTPError", "requests.auth.AuthBase"),
    *(
        "requests.ReadTimeout",
        "requests.codes",
        "requests.exceptions",
        "requests.auth.HTTPBasicAuth",
    ),
    *("requests.adapters.BaseAdapter", "requests.cookies.RequestsCookieJar"),
    *("requests.structures.CaseInsensitiveDict", "requests.utils.get_encoding_from_headers"),
    *("urllib3.HTTPHeaderDict", "urllib3.HTTPResponse", "urllib3.exceptions", "urllib3.util.Retry"),
    *("urllib3.util.ssl_.create_urllib3_context", "urllib3.__version__"),
}

# Attributes of objects that a caller gives, which the source reads by getattr().
OF_OBJECTS = {
    "aiohttp.TCPConnector._ssl",
    "concurrent.futures.ProcessPoolExecutor._broken",
    "concurrent.futures.ProcessPoolExecutor._call_queue",
    "concurrent.futures.ProcessPoolExecutor._executor_manager_thread",
    "concurrent.futures.ProcessPoolExecutor._max_workers",
    "concurrent.futures.ProcessPoolExecutor._processes",
    "concurrent.futures.ProcessPoolExecutor._result_queue",
    "distributed.cfexecutor.ClientExecutor._client",
    "multiprocessing.queues.Queue._reader",
    "multiprocessing.queues.Queue._writer",
    "multiprocessing.queues.SimpleQueue._writer",
    "sys._is_gil_enabled",
    "threading._register_atexit",
}


def dotted(node: ast.AST) -> str:
    """Return the text of `a.b.c`, or '' for anything else."""
    text = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
    return text if re.fullmatch(r"[\w.]+", text) else ""


def used() -> set[str]:
    """Return the names of the packages that the source uses, and the numbers of ssl errors."""
    found = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Attribute):
                found.add(dotted(node))
            elif isinstance(node, ast.Constant) and str(node.value).startswith("_negotiate"):
                found.add(f"socks.socksocket.{node.value}")
            elif isinstance(node, ast.Call) and ast.unparse(node.func) == "HTTPResponse":
                found |= {f"urllib3.HTTPResponse({keyword.arg})" for keyword in node.keywords}
    return found


def used_of_objects() -> set[str]:
    """Return the private attributes that the source reads by getattr()."""
    calls = (
        ast.unparse(node)
        for path in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "getattr"
    )
    return {found[1] for call in calls if (found := re.search(r", '(_[a-z]\w*)'", call))}


def used_of_ftplib() -> set[str]:
    """Return the undocumented attributes of ftplib.FTP that our subclass uses or overrides."""
    documented = {"__init__", "close", "login", "sendcmd", "voidcmd"}
    (control,) = (
        node
        for node in ast.walk(ast.parse((SOURCE / "ftp/control.py").read_text()))
        if isinstance(node, ast.ClassDef) and node.name == "Control"
    )
    names = set()
    for node in ast.walk(control):
        if isinstance(node, ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("self", "super()"):
            names.add(node.attr)
        elif isinstance(node, ast.Assign) and node in control.body:
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return {f"ftplib.FTP.{name}" for name in names & set(dir(ftplib.FTP)) - documented}


def test_listed_of_ftplib() -> None:
    """The list has exactly the undocumented attributes of ftplib.FTP that the source relies on."""
    assert {name for name in NAMES if name.startswith("ftplib.")} == used_of_ftplib()


def test_listed() -> None:
    """The list has exactly the undocumented names of dependencies that the source uses."""
    found = used()
    elsewhere = {name for name in NAMES if name.startswith("ftplib.")} | OF_OBJECTS
    assert [n for n in NAMES if n not in found and n not in elsewhere] == []
    undocumented = {
        name
        for name in found
        if name.startswith(tuple(f"{package}." for package in PACKAGES))
        and "(" not in name
        and name not in NAMES
        and not any(name == known or name.startswith(f"{known}.") for known in DOCUMENTED)
        # A module that is imported from, and what PySocks documents.
        and not re.fullmatch(r"(requests|urllib3)\.(util|utils|cookies|adapters)|socks\.\w+", name)
    }
    assert undocumented == set()


def test_listed_of_objects() -> None:
    """The list has exactly the private attributes that the source reads by getattr()."""
    assert set(NAMES) >= OF_OBJECTS
    assert {name.rpartition(".")[2] for name in OF_OBJECTS} == used_of_objects()


def test_workers_of_a_pool() -> None:
    """A pool of processes has the listed attribute, without which a batch would guess."""
    with ProcessPoolExecutor(3) as executor:
        assert Processes(executor).workers() == 3


def test_no_others_underscore() -> None:
    """The source has no `noqa` that permits the use of another class's private name."""
    sources = "".join(path.read_text() for path in SOURCE.rglob("*.py"))
    assert "SLF001" not in sources


def test_all_there() -> None:
    """Each listed name of a dependency has a reason and exists in the installed version."""
    assert all(NAMES.values())
    assert missing("") == []
    check()


@pytest.mark.parametrize(
    ("owner", "name", "listed"),
    [
        (requests.utils, "select_proxy", "requests.utils.select_proxy"),
        (urllib3, "HTTPResponse", "urllib3.HTTPResponse(sock_shutdown)"),
    ],
)
def test_missing(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, listed: str) -> None:
    """If a listed name or parameter of a dependency is missing, one sentence says so."""
    if "(" in listed:
        monkeypatch.setattr(owner, name, lambda body: None)
    else:
        monkeypatch.delattr(owner, name)
    assert listed in missing("")
    with pytest.raises(ImportError, match="which the installed version lacks") as caught:
        check()
    assert listed in str(caught.value)


@pytest.mark.parametrize("version", ["2.12.900", "2.15.901"])
def test_fork(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    """A fork of urllib3 that has the same name is refused, and the message says what to do."""
    monkeypatch.setattr(urllib3, "__version__", version)
    with pytest.raises(ImportError, match=r"is not urllib3 but a fork.*uninstall urllib3-future"):
        check()


@pytest.mark.parametrize("version", ["2.12.900", "2.15.901"])
def test_import_with_fork(version: str) -> None:
    """Importing the package fails clearly if urllib3 is a fork with the same name."""
    code = f"""
import urllib3
urllib3.__version__ = {version!r}
import pulpcore.plugin.download.futures.error
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=False, text=True, timeout=60
    )
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1
    assert last.startswith("ImportError: the module urllib3 is not urllib3")


def test_optional() -> None:
    """PySocks may be missing, which is reported only when a SOCKS proxy is used."""
    assert not any(name.startswith("socks.") for name in missing(""))
