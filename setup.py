"""What pyproject.toml can't say. Everything else is there."""

import shutil

from setuptools import setup
from setuptools.command.build import build


class CleanBuild(build):
    """Builds from the source only, and not from what an earlier build left in ``build``."""

    def run(self) -> None:
        """Remove the old output first: setuptools would pack modules that don't exist any more."""
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


setup(cmdclass={"build": CleanBuild})
