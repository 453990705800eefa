"""Every parser keeps its word on its seeds, and on what hypothesis makes of them."""

import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from targets import TARGETS, Target


@st.composite
def spoiled(draw: st.DrawFn, target: Target) -> bytes:
    """A seed with pieces taken out, doubled, replaced by words of its language, or by anything."""
    data = draw(st.sampled_from(target.seeds))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        to = min(len(data), at + draw(st.integers(0, 40)))
        new = draw(
            st.one_of(
                st.binary(max_size=20), st.sampled_from(target.words or (b"\x00",)), st.just(data[at:to] * 2)
            )
        )
        data = data[:at] + new + data[to:]
    return data


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
def test_seeds(target: Target) -> None:
    for seed in target.seeds:
        target.run(seed)


@pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)
def test_spoiled_seeds(target: Target) -> None:
    @settings(max_examples=150, deadline=1000)
    @given(spoiled(target))
    def run(data: bytes) -> None:
        target.run(data)

    run()
