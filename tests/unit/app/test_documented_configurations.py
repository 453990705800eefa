"""What the documentation shows as configuration can be pasted into a file and loads."""

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from offhook.config import load

ROOT = Path(__file__).resolve().parents[3]
SECRET = "whsec_" + "A" * 43 + "="


def blocks() -> Iterator[object]:
    for page in sorted(ROOT.glob("docs/**/*.md")):
        text = page.read_text()
        for found in re.finditer(r"^( *)```toml\n(.*?)^\1```", text, re.MULTILINE | re.DOTALL):
            if "format = 1" not in found[2]:  # a file of rules, which its own tests read
                line = text.count("\n", 0, found.start()) + 1
                yield pytest.param(textwrap.dedent(found[2]), id=f"{page.name}:{line}")


@pytest.mark.parametrize("block", list(blocks()))
def test_a_block_of_configuration_loads(block: str, tmp_path: Path) -> None:
    path = tmp_path / "offhook.toml"
    # A secret that everybody can read is none, so the pages show a gap that does not load.
    path.write_text(block.replace("whsec_…", SECRET))
    load(path)


def test_there_are_such_blocks() -> None:
    assert len(list(blocks())) >= 5
