"""
The tables. Portable SQL: SQLite now, PostgreSQL by the same statements.

Times are Unix seconds as floats, ids are the API's own strings, and what is only ever shown whole is JSON.
`migrations/` makes and changes them; a test compares the two.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
)

__all__ = [
    "api_keys",
    "attempts",
    "calls",
    "deliveries",
    "dialogs",
    "events",
    "metadata",
    "projects",
    "recordings",
    "refers",
    "timeline_pieces",
    "turns",
    "webhook_endpoints",
]

metadata = MetaData()

projects = Table(
    "projects",
    metadata,
    Column("id", String(80), primary_key=True),
    Column("name", Text, nullable=False),
    Column("created_at", Float, nullable=False),
    Column("settings", JSON, nullable=False),
)
"`settings` is what the configuration's table of a project holds, but for keys and endpoints."

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("project_id", String(80), nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("hash", String(64), nullable=False, unique=True),
    Column("hint", String(24), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("revoked_at", Float),
)
"`hash` is the key's SHA-256 in hex. A key has 256 random bits, so there is nothing to guess from it."

webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("project_id", String(80), nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("event_types", JSON, nullable=False),
    Column("secret", Text, nullable=False),
    Column("old_secrets", JSON),
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("project_id", String(80), nullable=False),
    Column("call_id", String(80), index=True),
    Column("type", String(80), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("urgent", Boolean, nullable=False),
    Index("events_by_time", "project_id", "created_at"),
    Index("events_of_all_by_time", "created_at"),
)
"`body` is the very bytes that are signed and sent, on every attempt."

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("event_id", String(64), nullable=False, index=True),
    Column("project_id", String(80), nullable=False),
    Column("endpoint_id", String(64), nullable=False),
    Column("node", String(16), nullable=False),
    Column("url", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due_at", Float),
    Column("last_status", Integer),
    Column("last_error", Text),
    Column("created_at", Float, nullable=False),
    Column("finished_at", Float),
    Index("deliveries_by_state", "state", "due_at"),
    Index("deliveries_by_time", "project_id", "created_at"),
)
"One event on its way to one endpoint; `state` is a `DeliveryState`."

attempts = Table(
    "attempts",
    metadata,
    Column("delivery_id", String(64), nullable=False),
    Column("number", Integer, nullable=False),
    Column("started_at", Float, nullable=False),
    Column("duration_ms", Float, nullable=False),
    Column("status", Integer),
    Column("error", Text),
    PrimaryKeyConstraint("delivery_id", "number"),
)

calls = Table(
    "calls",
    metadata,
    Column("id", String(80), primary_key=True),
    Column("project_id", String(80), nullable=False),
    Column("node", String(16), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("answered_at", Float),
    Column("ended_at", Float),
    Column("state", String(16), nullable=False),
    Column("from_user", Text, nullable=False),
    Column("to_user", Text, nullable=False),
    Column("request_uri", Text, nullable=False),
    Column("sip_call_id", Text, nullable=False, index=True),
    Column("carrier_call_id", Text, index=True),
    Column("result", String(24)),
    Column("reason", String(24)),
    Column("sip_status", Integer),
    Column("described", JSON, nullable=False),
    Index("calls_by_time", "project_id", "created_at"),
    Index("calls_of_all_by_time", "created_at", "id"),
    Index("calls_by_end", "ended_at"),
    Index("calls_by_state", "node", "state"),
)
"`described` is the body of `GET /v1/realtime/calls/{id}`; the other columns are what calls are searched by."

refers = Table(
    "refers",
    metadata,
    Column("call_id", String(80), nullable=False),
    Column("number", Integer, nullable=False),
    Column("described", JSON, nullable=False),
    PrimaryKeyConstraint("call_id", "number"),
)

turns = Table(
    "turns",
    metadata,
    Column("call_id", String(80), nullable=False),
    Column("number", Integer, nullable=False),
    Column("at", Float, nullable=False),
    Column("described", JSON, nullable=False),
    PrimaryKeyConstraint("call_id", "number"),
)
"Where the time of one turn went; `number` is its entry's on the timeline."

timeline_pieces = Table(
    "timeline_pieces",
    metadata,
    Column("call_id", String(80), nullable=False),
    Column("first", Integer, nullable=False),
    Column("entries", JSON, nullable=False),
    PrimaryKeyConstraint("call_id", "first"),
)
"""
The entries of a timeline that came within one commit, each as `[number, at, kind, title, details]`; `first` is the
number of the first.
"""

dialogs = Table(
    "dialogs",
    metadata,
    Column("call_id", String(80), primary_key=True),
    Column("node", String(16), nullable=False, index=True),
    Column("snapshot", JSON, nullable=False),
)
"What it takes to hang up a call that a crash has orphaned (decision 12 of the design)."

recordings = Table(
    "recordings",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("call_id", String(80), nullable=False, index=True),
    Column("project_id", String(80), nullable=False),
    Column("path", Text, nullable=False),
    Column("state", String(16), nullable=False),
    Column("started_at", Float, nullable=False),
    Column("ended_at", Float),
    Column("duration_ms", Float),
    Column("bytes", Integer),
)
