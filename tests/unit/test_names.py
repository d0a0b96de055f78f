"""Tests that each documented name of the API exists and has a docstring."""

import importlib
import importlib.util
import inspect
import pkgutil
import re
import types

import pytest

import pulpcore.plugin.download.futures as package
from pulpcore.plugin.download.futures import batch, validation
from pulpcore.plugin.download.futures.download import derived

NAMES = [
    "Batch",
    "BufferWriter",
    "DigestMismatch",
    "DigestValidation",
    "Download",
    "DownloadError",
    "DownloadFailed",
    "DownloadMonitor",
    "Event",
    "Factory",
    "FileDownload",
    "FileWriter",
    "FtpDownload",
    "HttpDownload",
    "Limits",
    "Metalink",
    "Mirrors",
    "MismatchError",
    "NotAuthorized",
    "NotFound",
    "Plan",
    "Settings",
    "SizeMismatch",
    "SizeValidation",
    "SSL",
    "Timeout",
    "User",
    "Validation",
    "ValidationError",
    "Writer",
]
MODULES = {
    "event": "Event Prepared Sent Replied Fetched Restarted Error Succeeded Failed EventRouter",
    "context": "Context Cache",
    "tools": "DownloadMonitor",
    "progress": "ProgressMonitor",
    "batch": "Batch Plan PlanIterator CONCURRENT BACKLOG",
    "validation": (
        "Validation SizeValidation DigestValidation ValidationError "
        "MismatchError SizeMismatch DigestMismatch"
    ),
    "error": (
        "DownloadError DownloadFailed NotFound NotAuthorized ValidationError "
        "MismatchError SizeMismatch DigestMismatch"
    ),
    "mirrors": "Metalink Mirrors",
    "stream": "Stream",
    "settings": "Limits Settings SSL User Timeout",
    "writer": "Writer FileWriter BufferWriter",
}
# The classes that the page of the API documents, and the members that it names one by one.
DIRECTIVES = {
    "Download": "__call__",
    "HttpDownload": "__call__",
    "FileDownload": "__call__",
    "Batch": "download shutdown __call__",
    "Validation": "",
    "SizeValidation": "",
    "DigestValidation": "__call__",
    "event.Event": "",
    "event.Prepared": "",
    "event.Sent": "",
    "event.Replied": "",
    "event.Succeeded": "",
    "event.Failed": "",
    "event.Error": "",
    "event.Fetched": "",
    "Writer": "",
    "FileWriter": "",
    "BufferWriter": "",
    "SSL": "",
    "User": "",
    "Timeout": "",
    "Limits": "",
    "Metalink": "",
    "Mirrors": "",
    "DownloadError": "",
    "DownloadFailed": "",
    "NotAuthorized": "",
    "NotFound": "",
    "ValidationError": "",
    "context.Context": "",
    "context.Cache": "",
    "Factory": "",
}
# Attributes of objects, which the docstring of the class or of its base documents.
ATTRIBUTES = {
    "Download": "url writer validations retries router attachment reply",
    "HttpDownload": "method timeout user ssl proxy_url headers status",
    "FileDownload": "error",
    "Batch": "downloads concurrent backlog context iterator",
    "Validation": "enforced",
    "SizeValidation": "expected actual",
    "DigestValidation": "algorithm expected",
    "event.Event": "download",
    "event.Error": "error retrying repaired",
    "event.Fetched": "buffer offset",
    "event.Failed": "error",
    "Writer": "fp",
    "FileWriter": "path",
    "SSL": "ca_certificate client_certificate client_key validation",
    "User": "name password",
    "Timeout": "connect read",
    "Limits": "bandwidth per_host in_flight",
    "DownloadError": "download reason",
    "DownloadFailed": "download reason",
    "NotAuthorized": "download reason",
    "NotFound": "download reason",
    "ValidationError": "download reason",
    "context.Context": "cache",
    "context.Cache": "eviction_threshold",
    "batch.Plan": "download executed error",
    "DownloadMonitor": "size algorithms",
}
# The documented methods and properties.
MEMBERS = {
    "Download": "register clone context BLOCK RETRIES",
    "HttpDownload": "session",
    "Batch": "is_shutdown",
    "batch.Plan": "result",
    "Writer": "is_open open append close discard truncate",
    "BufferWriter": "content read",
    "Validation": "update apply reset",
    "DigestValidation": "actual ALGORITHMS",
    "Settings": "validate",
    "event.EventRouter": "register unregister send clear",
    "context.Cache": "put get purge evict",
    "Factory": "build",
    "DownloadMonitor": "attach facts update",
}


def find(name):
    """Return the class at a dotted name below the package."""
    module, _, name = name.rpartition(".")
    where = importlib.import_module(f"{package.__name__}.{module}") if module else package
    return getattr(where, name)


def modules():
    """Return each module except the command line and those that need what isn't installed."""
    left_out = {"pulp"}
    if importlib.util.find_spec("opentelemetry") is None:
        left_out.add("telemetry")
    yield package
    for info in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if ".cli" not in info.name and info.name.rpartition(".")[2] not in left_out:
            yield importlib.import_module(info.name)


def public_members(cls):
    """Return the public methods and properties that a class defines, and __call__."""
    for name, member in vars(cls).items():
        if (name == "__call__" or not name.startswith("_")) and isinstance(
            inspect.unwrap(getattr(member, "__func__", member)), types.FunctionType | property
        ):
            yield name, getattr(cls, name)


def test_public_names():
    """The package exports exactly the documented public names."""
    public = {
        name
        for name, value in vars(package).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert public == set(package.__all__) == set(NAMES)
    assert len(package.__all__) == len(NAMES)


@pytest.mark.parametrize("module", MODULES)
def test_names_of_modules(module):
    """Each public module has its documented names."""
    found = importlib.import_module(f"{package.__name__}.{module}")
    assert not [name for name in MODULES[module].split() if not hasattr(found, name)]


def test_constants():
    """The public constants have their documented values."""
    assert (batch.CONCURRENT, batch.BACKLOG, package.Download.RETRIES) == (4, 1024, 1)
    assert list(validation.DigestValidation.ALGORITHMS) == [
        *("sha512", "sha384", "sha256", "sha224", "sha1", "md5")
    ]


def test_one_class_one_name():
    """Each import path of a class leads to the same class."""
    for names in MODULES.values():
        for name in names.split():
            homes = [
                find(f"{module}.{name}") for module in MODULES if name in MODULES[module].split()
            ]
            assert all(home is homes[0] for home in homes)
            assert getattr(package, name, homes[0]) is homes[0]


@pytest.mark.parametrize("directive", DIRECTIVES)
def test_directives(directive):
    """Each class and member named by the API page exists and has a docstring."""
    cls = find(directive)
    assert inspect.isclass(cls)
    assert inspect.getdoc(cls)
    assert not [
        name for name in DIRECTIVES[directive].split() if not inspect.getdoc(getattr(cls, name))
    ]


@pytest.mark.parametrize("name", MEMBERS)
def test_members(name):
    """Each documented member exists."""
    assert not [member for member in MEMBERS[name].split() if not hasattr(find(name), member)]


def is_documented(cls, attribute):
    """Return whether an attribute has a docstring, or a line in that of its class or a base."""
    return any(
        f"\n    {attribute} (" in (inspect.getdoc(base) or "")
        or isinstance(vars(base).get(attribute), property | derived)
        or re.search(rf'\n    {attribute}: .*\n    """', inspect.getsource(base))
        for base in cls.__mro__
        if base.__module__.startswith(package.__name__)
    )


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_attributes(name):
    """Each documented attribute is described in a docstring."""
    cls = find(name)
    assert not [each for each in ATTRIBUTES[name].split() if not is_documented(cls, each)]


@pytest.mark.parametrize(
    "name", ["DownloadError", "DownloadFailed", "NotAuthorized", "NotFound", "ValidationError"]
)
@pytest.mark.parametrize("attribute", ["download", "reason"])
def test_attributes_of_errors(name, attribute):
    """The error classes have what `:members: download, reason` needs to build without warnings."""
    cls = find(name)
    annotated = {key for base in cls.__mro__ for key in vars(base).get("__annotations__", {})}
    assert attribute in annotated or hasattr(cls, attribute)


def test_docstrings():
    """Each module, public class, function, method and property has a docstring."""
    bare = []
    for module in modules():
        objects = {module.__name__: module}
        for name, value in vars(module).items():
            if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
                continue
            if inspect.isclass(value):
                objects |= {f"{value.__name__}.{key}": item for key, item in public_members(value)}
            if inspect.isclass(value) or inspect.isfunction(value):
                objects[name] = value
        bare += [
            f"{module.__name__}: {name}"
            for name, value in objects.items()
            if not inspect.getdoc(value)
        ]
    assert not bare


def test_download_is_abstract():
    """A Download without a protocol can't be instantiated."""
    with pytest.raises(TypeError, match="_send"):
        package.Download("http://example.org/", None)
