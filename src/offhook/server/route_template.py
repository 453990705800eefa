"""Which route a request was for, whatever stands in its path and whichever prefix it is below."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["template_of", "without_prefix"]

_PREFIX = re.compile(r"^(?:/openai)?(?:/v1)?(?=/)")
_CONVERTOR = re.compile(r":[a-z]+\}")


def template_of(scope: Mapping[str, Any]) -> str:
    """Return the template of the path, the same below each of the prefixes that an API is served at."""
    route = getattr(scope.get("route"), "path", None)
    if route is None and scope.get("endpoint") is not None and not scope.get("path_params"):
        route = scope["path"]  # a plain route without parameters: the path is the template
    return _CONVERTOR.sub("}", without_prefix(route or "unmatched"))


def without_prefix(path: str) -> str:
    """Return a path without the prefix that it is served below, if it is below one."""
    return _PREFIX.sub("", path)
