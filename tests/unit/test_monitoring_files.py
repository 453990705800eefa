"""The alert rules and the dashboard in contrib/ can be loaded, and ask for metrics that there are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from offhook.metrics import FAMILIES

ROOT = Path(__file__).resolve().parents[2]
METRIC = re.compile(r"\b(?:offhook|process)_[a-z_]+")
FUNCTIONS = re.compile(r"[a-z_]+(?= ?\()")


def documented() -> dict[str, str]:
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    return dict(re.findall(r"^\| `([a-z_]+)` \| (\w+) \|", page, re.MULTILINE))


def exposed() -> set[str]:
    """Return the names that a query may ask for: a histogram and a summary have samples of other names."""
    names = set(documented())
    for name, kind in documented().items():
        names |= {f"{name}_{end}" for end in ("sum", "count", "bucket") if kind == "histogram"}
        names |= {f"{name}_{end}" for end in ("sum", "count") if kind == "summary"}
    return names


def rules() -> list[dict[str, Any]]:
    loaded = yaml.safe_load((ROOT / "contrib" / "prometheus" / "alerts.yaml").read_text())
    return [rule for group in loaded["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    loaded = json.loads((ROOT / "contrib" / "grafana" / "offhook.json").read_text())
    found: list[dict[str, Any]] = loaded["panels"]
    return found


def expressions() -> Iterator[tuple[str, str]]:
    for rule in rules():
        yield rule["alert"], rule["expr"]
    for panel in panels():
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


@pytest.mark.parametrize(("where", "expression"), [*expressions()])
def test_every_expression_asks_for_metrics_that_there_are(where: str, expression: str) -> None:
    asked = set(METRIC.findall(expression))
    assert asked
    assert asked <= exposed(), where
    assert expression.count("(") == expression.count(")")
    assert expression.count("{") == expression.count("}")
    known = {"rate", "increase", "sum", "by", "on", "time", "histogram_quantile", "max", "avg", "clamp_min"}
    assert set(FUNCTIONS.findall(expression)) <= known
    # Prometheus refuses a whole file for a label match beside a number. `make interop` has it read all of this.
    assert not re.search(r"[0-9] *[-+*/><]=? *on\b", expression)


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_every_alert_says_what_is_wrong_and_how_bad_it_is(rule: dict[str, Any]) -> None:
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["annotations"]["summary"]
    assert re.fullmatch(r"\d+m", rule.get("for", "1m"))


def test_panels_do_not_overlap_and_have_ids_of_their_own() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in panels()}) == len(panels())


def test_every_family_that_is_counted_is_documented() -> None:
    for name, family in FAMILIES.items():
        shown = name if family.buckets or family.goes_down else f"{name}_total"
        assert shown in documented()
