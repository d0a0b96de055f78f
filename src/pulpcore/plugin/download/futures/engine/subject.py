"""The type Download, which is above the engine. For type checkers only."""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["Download"]

if TYPE_CHECKING:
    from ..download import Download
