"""The words that users meet stand in the reference: every key of the configuration, and how a call can end."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from offhook.calls.record import EndReason, Result
from offhook.config import Config, FallbackTable, ProjectTable, WebhookTable
from offhook.config_trunks import TrunkTable
from offhook.config_upstreams import UpstreamTable
from offhook.register_table import RegisterTable

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference"


def keys(table: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in table.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from keys(inner, f"{key}.")
        else:
            yield key


@pytest.mark.parametrize(
    "table", [Config, ProjectTable, TrunkTable, WebhookTable, FallbackTable, UpstreamTable, RegisterTable]
)
def test_every_key_is_in_the_reference(table: type[BaseModel]) -> None:
    page = (REFERENCE / "configuration.md").read_text()
    named = set(re.findall(r"[a-z_.]*[a-z_]", page))
    # In a row of several keys, only the first has its table's name.
    missing = [key for key in keys(table) if key not in named and key.rpartition(".")[2] not in named]
    assert missing == []


@pytest.mark.parametrize("word", [*EndReason, *Result])
def test_every_end_of_a_call_is_in_the_reference(word: str) -> None:
    assert f"`{word}`" in (REFERENCE / "webhooks.md").read_text()


def test_the_tests_that_the_sip_page_names_exist() -> None:
    page = (REFERENCE / "sip.md").read_text()
    tests = REFERENCE.parents[1] / "tests"
    defined = {
        name
        for path in tests.rglob("test_*.py")
        for name in (
            path.name,
            *re.findall(r"^ *(?:async )?def (test_\w+)\(", path.read_text(), re.MULTILINE),
        )
    }
    named = set(re.findall(r"`(test_\w+(?:\.py)?)`", page))
    assert len(named) > 200
    assert named - defined == set()
    files = re.findall(r"`(tests/[\w/]+\.py)`", page)
    assert [file for file in files if not (tests.parent / file).is_file()] == []


def test_each_picture_of_the_pages_can_be_made_anew_and_is_shown() -> None:
    root = REFERENCE.parents[1]
    script = (root / "tests" / "browser" / "screenshots.py").read_text()
    made = set(re.findall(r'(?:keep|show)\("([a-z]+)"', script))
    there = {path.stem.removeprefix("pages-") for path in (root / "docs" / "images").glob("pages-*.png")}
    shown = set(
        re.findall(r"images/pages-([a-z]+)\.png", (root / "docs" / "howto" / "dashboard.md").read_text())
    )
    assert made == there == shown
