"""Check the programs of the README and of the pages with mypy and pyright, as a user's programs.

``python tests/typing/pages.py FOLDER`` writes each program to a file of the folder and checks it.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.rst", *sorted((ROOT / "docs").glob("*.rst"))]
FILES = [ROOT / "docs" / "zoo.py", *sorted((ROOT / "docs" / "examples").glob("*.py"))]
BLOCK = re.compile(r"^\.\. code-block:: python\n\n(?P<code>(?: {4}.*\n|\n)+)", re.MULTILINE)


def write(folder: Path) -> None:
    """Write the programs. An error then names the page and its line."""
    folder.mkdir(parents=True)
    # Libraries that only the examples need, such as Django, aren't installed.
    ignored = {"reportMissingImports": False, "reportMissingModuleSource": False}
    (folder / "pyrightconfig.json").write_text(json.dumps(ignored))
    for page in PAGES:
        text = page.read_text()
        for match in BLOCK.finditer(text):
            line = text.count("\n", 0, match.start("code")) + 1
            name = re.sub(r"\W", "_", f"{page.stem}_{line}").lower()
            (folder / f"{name}.py").write_text("\n" * (line - 1) + dedent(match["code"]))
    for path in FILES:
        (folder / path.name).write_text(path.read_text())


def check(folder: Path) -> int:
    """Check the programs in the folder. Return the number of checkers that found an error."""
    mypy = ["--config-file=", "--check-untyped-defs", "--cache-dir", str(folder / ".cache")]
    mypy += ["--disable-error-code=import-not-found", "--disable-error-code=import-untyped"]
    commands = [
        [sys.executable, "-m", "mypy", *mypy, *map(str, sorted(folder.glob("*.py")))],
        [sys.executable, "-m", "pyright", "--project", str(folder), "--pythonpath", sys.executable],
    ]
    return sum(subprocess.run(command, check=False).returncode != 0 for command in commands)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
    sys.exit(check(Path(sys.argv[1])))
