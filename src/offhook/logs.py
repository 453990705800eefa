"""One JSON line for each thing that happens, written by a thread of its own so that a slow disk delays no packet."""

from __future__ import annotations

import datetime
import logging
import logging.handlers
import queue
import re
import sys
from typing import Any, TextIO

import orjson

from offhook.secret_words import SecretWords

__all__ = ["SECRETS", "JsonLines", "start"]

SECRETS = SecretWords()
"""
What no line of the log says, at whatever level: `learn` them before anything is done with them. One for the process,
as logging itself is. The rooms keep secrets out of what they log; this is for what they do not foresee, such as the
text of somebody else's exception.
"""

_UNPRINTED = re.compile("[\x7f-\x9f\u2028\u2029]")
"What JSON may have in a string as it is, and terminals take for commands, or readers of lines for a line's end."
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """Formats a record as `{"at", "level", "logger", "event", "text", ...}`, with whatever `extra` it carries."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line: dict[str, Any] = {
            "at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "text": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        text = orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
        return SECRETS.redact(_UNPRINTED.sub(_escape, text))


def _escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


class _Queue(logging.handlers.QueueHandler):
    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        # The listener is in this process: nothing need be made picklable, and exc_info must survive.
        return record


def start(level: str = "INFO", stream: TextIO | None = None) -> logging.handlers.QueueListener:
    """Send all logging to `stream` (standard error). Call `stop()` of what is returned to write what is left."""
    output = logging.StreamHandler(stream or sys.stderr)
    output.setFormatter(JsonLines())
    records: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    root = logging.getLogger()
    root.handlers[:] = [_Queue(records)]
    root.setLevel(level)
    for noisy in ("httpx", "httpx2", "httpcore", "httpcore2", "websockets", "uvicorn", "asyncio", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    listener = logging.handlers.QueueListener(records, output)
    listener.start()
    return listener
