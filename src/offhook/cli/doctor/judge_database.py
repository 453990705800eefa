"""What the database means, and what was made by API and is kept in it. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from .facts import DatabaseFacts, StoredFacts
from .verdict import Finding, fault, ok, warning

__all__ = ["judge_database", "judge_stored"]

MB = 1024 * 1024


def judge_database(facts: DatabaseFacts) -> Iterator[Finding]:
    where = facts.path or facts.url
    if facts.url == "none":
        yield warning(
            "database",
            "server.database = none: a restart forgets every call, and webhooks that were not delivered",
            'Set server.database = "sqlite".',
        )
        return
    if facts.error:
        yield fault(
            "database",
            f"{where} cannot be used: {facts.error}",
            "Check the file and its folder: the node's user must be able to write both. A damaged one is replaced by "
            "its copy, or moved away so that a new one is made.",
        )
        return
    if facts.locked:
        yield fault(
            "database",
            f"{where} is locked: another program has kept it from being written for 2 s",
            "End what holds it: a copy that hangs, or a shell with `sqlite3` (`fuser` names it). Calls go on "
            "meanwhile, but nothing of them is kept.",
        )
    elif not facts.writable:
        yield fault(
            "database",
            f"{where} or its folder cannot be written by this user",
            "`chown` both to the node's user, or run the doctor as that user; a disk that is mounted for reading alone "
            "must be mounted for writing.",
        )
    elif not facts.exists:
        yield ok("database", f"{where} will be made at the first start")
    elif not facts.known:
        yield fault(
            "database",
            f"{where} was made by a newer version of Offhook (revision {facts.revision})",
            "Run that version, or give this one another server.database.",
        )
    elif facts.revision != facts.newest:
        yield ok(
            "database",
            f"{where} is of an older version; `offhook serve` brings it up to date",
            "Copy it before.",
        )
    else:
        yield ok("database", f"{where} can be used, {facts.bytes / MB:.0f} MB")
    yield from _judge_disk(facts, where)


def _judge_disk(facts: DatabaseFacts, where: str) -> Iterator[Finding]:
    if facts.free_bytes is not None:
        free, remedy = facts.free_bytes / MB, "Free some space, or move server.data_dir."
        if free < 100:
            yield fault("database", f"only {free:.0f} MB are free for {where}", remedy)
        elif free < 1024:
            yield warning("database", f"only {free:.0f} MB are free for {where}", remedy)
        else:
            yield ok("database", f"{free / 1024:.0f} GB are free")
    if facts.wal_bytes > 256 * MB:
        yield warning(
            "database",
            f"{where}-wal has grown to {facts.wal_bytes / MB:.0f} MB",
            "Something keeps the database open for reading for long: a copy, or a shell with `sqlite3`. End it.",
        )


def judge_stored(facts: StoredFacts) -> Iterator[Finding]:
    if facts.projects or facts.endpoints:
        yield ok(
            "projects",
            f"made by API and looked at, too: {_many(facts.projects, 'project')}, "
            f"{_many(facts.endpoints, 'webhook endpoint')}",
        )
    for project, reason in facts.unusable:
        yield fault(
            "projects",
            f"{project}, made by API, cannot be used: {reason}",
            "Give the configuration what it names, or make it anew: `offhook projects create --id` replaces it.",
        )
    for project, what in facts.overshadowed:
        yield warning(
            "projects",
            f"{project}, made by API: its {what} in the configuration, which counts",
            "Delete one of the two: `offhook projects delete`, or its table in the configuration.",
        )


def _many(count: int, word: str) -> str:
    return f"{count} {word}{'s' * (count != 1)}"
