"""docs/reference/api-rows.md explains every row that is cited, and the tests that it names exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reference/api-rows.md").read_text()
ROW = r"[RCWSEVOGA]\d\d"


def _explained():
    rows = set()
    for cell in re.findall(r"^\| ([^|]*) \|", PAGE, re.M):
        if span := re.fullmatch(rf"({ROW}) to ({ROW})", cell):
            letter, first, last = span[1][0], int(span[1][1:]), int(span[2][1:])
            rows |= {f"{letter}{number:02}" for number in range(first, last + 1)}
        else:
            rows |= set(re.findall(ROW, cell))
    return rows


def test_every_row_that_is_cited_is_explained():
    cited = {}
    for folder in ("src", "tests", "examples"):
        for path in (ROOT / folder).rglob("*.py"):
            for citation in re.findall(rf"\brows? ((?:{ROW}|[ ,]|and|to)+)", path.read_text()):
                cited |= dict.fromkeys(re.findall(ROW, citation), path)
    assert len(cited) > 50
    assert not {row: str(path) for row, path in cited.items() if row not in _explained()}


def test_the_tests_that_it_names_exist():
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    defined = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)\(", path.read_text(), re.M)
    }
    assert len(named) > 100
    assert not named - defined
