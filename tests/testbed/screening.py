"""`examples/screening/app.py` as it stands, told of a node by its environment alone."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest
from werkzeug.serving import make_server

from .node import Node, Seat

__all__ = ["TARGET", "messages_of", "screening_app"]

APP = Path(__file__).parents[2] / "examples" / "screening" / "app.py"
TARGET = "tel:+15550100"
"Whom the example puts callers through to when nobody tells it."


@contextmanager
def screening_app(node: Node) -> Iterator[Seat]:
    """Let the example serve on a free seat of the node; it keeps messages in `messages_of(node)`."""
    seat = node.seat()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_BASE_URL", node.base_url)
        patch.setenv("OPENAI_API_KEY", seat.api_key)
        patch.setenv("OPENAI_WEBHOOK_SECRET", seat.secret)
        patch.setenv("MESSAGES", str(messages_of(node)))
        app = _load().app
        app.add_url_rule("/webhook", view_func=app.view_functions["webhook"], methods=["POST"])
        seat.socket.listen()
        server = make_server("127.0.0.1", 0, app, threaded=True, fd=seat.socket.fileno())
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield seat
        finally:
            server.shutdown()
            thread.join(5)
            server.server_close()


def messages_of(node: Node) -> Path:
    """Return the folder of the messages that callers have left."""
    return node.folder / "messages"


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("screening_app", APP)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
