"""The secrets of MCP tools (row G13): an app gives them, the upstream needs them, nobody else reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["McpSecrets", "without_secrets"]

MIN_SECRET = 6
"Characters. What is shorter would be found in words that have nothing to do with it."
MAX_SERVERS = 64
_SECRET = ("authorization", "headers")


def without_secrets(session: Mapping[str, Any]) -> dict[str, Any]:
    """Return a session without what its MCP tools hold for their servers alone."""
    if not any(_secrets(tool) for tool in _mcp_tools(session)):
        return dict(session)
    tools = [
        {name: value for name, value in tool.items() if name not in _SECRET}
        if isinstance(tool, Mapping) and tool.get("type") == "mcp"
        else tool
        for tool in session["tools"]
    ]
    return {**session, "tools": tools}


class McpSecrets:
    """What an app said to the MCP servers of one call, by `server_label`."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, Any]] = {}

    def learn(self, session: Any) -> None:
        """Take a session object, or a response's parameters, that goes up."""
        for tool in _mcp_tools(session):
            if secrets := _secrets(tool):
                self._known[str(tool.get("server_label"))] = secrets
                if len(self._known) > MAX_SERVERS:
                    del self._known[next(iter(self._known))]

    def restore(self, session: Mapping[str, Any]) -> dict[str, Any]:
        """Return a session with the secrets that an upstream does not repeat."""
        if not self._known or not isinstance(session.get("tools"), list):
            return dict(session)
        tools = [
            {**tool, **self._known.get(str(tool.get("server_label")), {})}
            if isinstance(tool, Mapping) and tool.get("type") == "mcp"
            else tool
            for tool in session["tools"]
        ]
        return {**session, "tools": tools}

    def hide(self, text: str) -> str:
        """Return an upstream's words without the secrets in them."""
        for secrets in self._known.values():
            for word in _words(secrets):
                text = text.replace(word, "[secret]")
        return text


def _mcp_tools(session: Any) -> Iterator[Mapping[str, Any]]:
    tools = session.get("tools") if isinstance(session, Mapping) else None
    for tool in tools if isinstance(tools, list) else ():
        if isinstance(tool, Mapping) and tool.get("type") == "mcp":
            yield tool


def _secrets(tool: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tool[name] for name in _SECRET if tool.get(name)}


def _words(secrets: Mapping[str, Any]) -> Iterator[str]:
    headers = secrets.get("headers")
    values = [secrets.get("authorization"), *(headers.values() if isinstance(headers, Mapping) else ())]
    for value in values:
        if isinstance(value, str) and len(value) >= MIN_SECRET:
            yield value
            # A scheme stands before it, and a server may repeat the rest alone.
            last = value.split(" ")[-1]
            if len(last) >= MIN_SECRET:
                yield last
