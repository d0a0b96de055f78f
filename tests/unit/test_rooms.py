"""The rooms of the package: who may import whom, and how large a function or a class may be.

Everything here is read from the source by `ast`; nothing of the package is imported.
"""

import ast
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "pulpcore" / "plugin" / "download" / "futures"
NAME = "pulpcore.plugin.download.futures"

# The floors, from the ground up. A room is a module that lies flat, or a folder. A room imports
# from floors below its own only, so rooms of one floor never import each other.
FLOORS = [
    {"redact"},
    {"waiting", "settings"},
    {"error", "event", "context", "rate", "address", "storage"},
    {"validation", "writer", "net"},
    {"engine"},
    {"stream"},
    {"download"},
    {"http", "ftp", "file", "pool"},
    {"auth", "mirrors"},
    {"factory", "batch", "tools", "progress"},
    {"cli", "pulp", "telemetry"},
]

# The package's own `__init__.py`, by its name below the package. It imports every public name, so
# only `cli` may import from it.
DOOR = ""

# Modules of the public API. `redact` is private, and the only one such that lies flat.
PUBLIC = {
    *("address", "auth", "batch", "context", "download", "error", "event", "factory", "file"),
    *("mirrors", "progress", "pulp", "rate", "settings", "stream", "telemetry", "tools"),
    *("validation", "writer"),
}

# Imports that go up, or between rooms of one floor, with the reason why each has to. All are for
# type checkers only: at run time there is none.
EXCEPTIONS = {
    ("error", "download"): "an error's public attribute `download` is a Download",
    ("event", "download"): "an event's public attribute `download` is a Download",
    ("event", "error"): "the events Error and Failed carry a DownloadError",
    ("engine.subject", "download"): "the engine runs a Download",
}


# An import within a room that closes a cycle; for type checkers only, too.
CYCLES: dict[tuple[str, str], str] = {}

LONGEST_FUNCTION = 40
LONGEST_CLASS = 300


class Import(NamedTuple):
    """An import statement.

    Attributes:
        module: Which module imports, by its name below the package, such as `http.wire.reply`.
        target: Which module of the package it imports, in the same form.
        name: The name that is imported from there; '' for the module itself.
        line: The number of the line.
        typing: Only type checkers see it.
    """

    module: str
    target: str
    name: str
    line: int
    typing: bool


def module_name(path: Path) -> str:
    """Return the name of a module below the package; '' for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text()) for name, path in SOURCES.items()}


def room(module: str) -> str:
    """Return the room of a module: its folder, or the module itself if it lies flat."""
    return module.partition(".")[0]


def floor(module: str) -> int:
    """Return the number of a module's floor, from the ground up."""
    (found,) = (number for number, rooms in enumerate(FLOORS) if room(module) in rooms)
    return found


def is_typing(node: ast.If) -> bool:
    """Return whether a branch is for type checkers only."""
    return ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def statements(tree: ast.AST, typing: bool = False) -> list[tuple[ast.AST, bool]]:
    """Return each import statement below a node, in functions too, and whether it is for typing."""
    found = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found.append((node, typing))
        elif isinstance(node, ast.If) and is_typing(node):
            for child in node.body:
                found.extend(statements(ast.Module([child], []), typing=True))
            for child in node.orelse:
                found.extend(statements(ast.Module([child], []), typing))
        else:
            found.extend(statements(node, typing))
    return found


def base(module: str, node: ast.ImportFrom) -> str | None:
    """Return the absolute name that a `from` statement imports from."""
    if not node.level:
        return node.module
    package = SOURCES[module].parent.relative_to(PACKAGE).parts
    parts = [*NAME.split("."), *package]
    parts = parts[: len(parts) - node.level + 1]
    return ".".join([*parts, *([node.module] if node.module else [])])


def below(name: str | None) -> str | None:
    """Return the part of an absolute name below the package; None if it isn't ours."""
    if name == NAME:
        return ""
    if name is not None and name.startswith(NAME + "."):
        return name[len(NAME) + 1 :]
    return None


def imports(module: str) -> list[Import]:
    """Return what a module imports of the package."""
    found = []
    for node, typing in statements(TREES[module]):
        if isinstance(node, ast.Import):
            for alias in node.names:
                target = below(alias.name)
                if target is not None:
                    found.append(Import(module, target, "", node.lineno, typing))
            continue
        target = below(base(module, node))
        if target is None:
            continue
        for alias in node.names:
            child = f"{target}.{alias.name}" if target else alias.name
            if child in SOURCES:
                found.append(Import(module, child, "", node.lineno, typing))
            else:
                found.append(Import(module, target, alias.name, node.lineno, typing))
    return found


IMPORTS = [found for module in SOURCES for found in imports(module)]


def direction(found: Import) -> str | None:
    """Return what is wrong with the direction of an import, or None."""
    here, there = found.module, found.target
    if here == DOOR or (room(here) == room(there) and there != DOOR):
        return None
    if room(here) == "cli":
        return None
    if there == DOOR:
        return "imports from the package's own __init__.py"
    if floor(there) > floor(here):
        return f"imports up, from {room(there)}"
    if floor(there) == floor(here):
        return f"imports from {room(there)}, which is on the same floor"
    return None


@pytest.mark.parametrize("module", SOURCES)
def test_imports_go_down(module: str) -> None:
    """A module imports only from lower floors and its own room, except for listed exceptions."""
    wrong = {
        f"{module}:{found.line} {reason}"
        for found in imports(module)
        if (reason := direction(found)) is not None
        and not (found.typing and (module, found.target) in EXCEPTIONS)
    }
    assert not wrong


def test_each_exception_is_needed() -> None:
    """Each listed exception is an existing import that goes up, for type checkers only."""
    found = {
        (each.module, each.target)
        for each in IMPORTS
        if each.typing and direction(each) is not None
    }
    assert found == set(EXCEPTIONS)
    typed = {(each.module, each.target) for each in IMPORTS if each.typing}
    untyped = {(each.module, each.target) for each in IMPORTS if not each.typing}
    assert set(CYCLES) <= typed - untyped


def test_each_room_has_a_floor() -> None:
    """Each room of the package is on exactly one floor, and each listed room exists."""
    listed = [name for rooms in FLOORS for name in rooms]
    assert sorted(listed) == sorted({room(module) for module in SOURCES} - {DOOR})


def test_only_public_modules_lie_flat() -> None:
    """Each module directly in the package is public, except `redact`."""
    flat = {module for module, path in SOURCES.items() if path.parent == PACKAGE} - {DOOR}
    assert {module for module in flat if SOURCES[module].stem != "__init__"} == PUBLIC | {"redact"}


def test_no_cycle() -> None:
    """The imports of the package have no cycle, including those for type checkers."""
    after: dict[str, set[str]] = {module: set() for module in SOURCES}
    for found in IMPORTS:
        if (found.module, found.target) not in EXCEPTIONS | CYCLES:
            after[found.module].add(found.target)
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " -> ".join([*above, module])
        if module not in done:
            for target in sorted(after[module]):
                visit(target, (*above, module))
            done.add(module)

    for module in SOURCES:
        visit(module, ())


def test_waiting_needs_only_the_standard_library() -> None:
    """The room `waiting` imports only its own modules and the standard library."""
    for module in SOURCES:
        if room(module) != "waiting":
            continue
        assert [found for found in imports(module) if room(found.target) != "waiting"] == []
        for node, _ in statements(TREES[module]):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [base(module, node) or ""]
            )
            tops = {name.partition(".")[0] for name in names}
            assert tops <= set(sys.stdlib_module_names) | {"pulpcore"}


def test_no_private_name_is_imported() -> None:
    """No module imports a private name from another module of the package."""
    private = [
        found
        for found in IMPORTS
        if any(part.startswith("_") for part in [*found.target.split("."), found.name])
    ]
    assert private == []


def is_private(name: str) -> bool:
    """Return whether a name begins with one underscore."""
    return name.startswith("_") and not name.endswith("__")


def private_names(tree: ast.AST) -> set[str]:
    """Return the private names that a module defines: functions, attributes, slots."""
    found = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                found.add(name)
            case ast.ClassDef(name=name) | ast.Name(id=name, ctx=ast.Store()):
                found.add(name)
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                found.add(name)
            case ast.Constant(value=str(name)):  # an item of __slots__
                found.add(name)
    return {name for name in found if is_private(name)}


PRIVATE = {name: private_names(tree) for name, tree in TREES.items()}


@pytest.mark.parametrize("module", SOURCES)
def test_nobody_uses_private_attributes_of_others(module: str) -> None:
    """A module uses private attributes of other objects only if it defines them itself.

    Only names that another module of ours defines are checked. Those of dependencies have a list of
    their own.
    """
    elsewhere = set().union(*(names for other, names in PRIVATE.items() if other != module))
    wrong = [
        f"{module}:{node.lineno} {ast.unparse(node)}"
        for node in ast.walk(TREES[module])
        if isinstance(node, ast.Attribute)
        and is_private(node.attr)
        and ast.unparse(node.value) not in ("self", "cls", "super()")
        and node.attr in elsewhere
        and node.attr not in PRIVATE[module]
    ]
    assert wrong == []


def sizes(tree: ast.AST) -> list[tuple[str, int, int]]:
    """Return name, number of lines and limit of each function and class of a module.

    A function's docstring isn't counted. A class is counted with everything in it.
    """
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            assert node.end_lineno is not None
            found.append((node.name, node.end_lineno - node.lineno + 1, LONGEST_CLASS))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            lines = node.end_lineno - node.lineno + 1
            if ast.get_docstring(node) is not None:
                first = node.body[0]
                assert first.end_lineno is not None
                lines -= first.end_lineno - first.lineno + 1
            found.append((node.name, lines, LONGEST_FUNCTION))
    return found


@pytest.mark.parametrize("module", SOURCES)
def test_sizes(module: str) -> None:
    """No function has more than 40 lines without its docstring, and no class more than 300."""
    assert {name for name, lines, limit in sizes(TREES[module]) if lines > limit} == set()
