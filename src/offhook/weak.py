"""Callbacks that do not keep alive whom they call: what points back at its owner is freed only by the collector."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import ParamSpec

__all__ = ["weakly"]

Given = ParamSpec("Given")


def weakly(method: Callable[Given, None]) -> Callable[Given, None]:
    """Return what calls a bound method as long as its object lives, and after that does nothing."""
    # A tenth of what `weakref.WeakMethod` costs; a call makes a dozen.
    held = weakref.ref(method.__self__)  # type: ignore[attr-defined]
    function = method.__func__  # type: ignore[attr-defined]

    def call(*args: Given.args, **kwargs: Given.kwargs) -> None:
        alive = held()
        if alive is not None:
            function(alive, *args, **kwargs)

    return call
