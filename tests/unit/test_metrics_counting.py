"""What a node counts: families by name, a bounded number of series."""

from __future__ import annotations

import pytest

from offhook.metrics import FAMILIES, MAX_SERIES, Metrics


def counted(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    return next(one.values for one in metrics.counted() if one.name == name)


def test_counters_add_up_by_label() -> None:
    metrics = Metrics()
    metrics.count("offhook_rtp_packets", "in", by=50)
    metrics.count("offhook_rtp_packets", "in")
    metrics.count("offhook_rtp_packets", "out", by=2)
    assert counted(metrics, "offhook_rtp_packets") == {("in",): 51, ("out",): 2}


def test_a_histogram_counts_what_is_not_above_each_end() -> None:
    metrics = Metrics()
    for took in (0.05, 0.1, 0.11, 99.0):
        metrics.observe("offhook_turn_seconds", took, "first_played")
    found = next(one for one in metrics.counted() if one.name == "offhook_turn_seconds")
    histogram = found.histograms["first_played",]
    by_end = dict(histogram.cumulative())
    assert by_end["0.1"] == 2  # an end belongs to its bucket
    assert by_end["0.2"] == 3
    assert by_end["10.0"] == 3
    assert by_end["+Inf"] == 4
    assert histogram.sum == pytest.approx(99.26)


def test_series_are_bounded_whatever_is_counted() -> None:
    metrics = Metrics()
    for number in range(MAX_SERIES + 200):
        metrics.count("offhook_refer_updates", f"odd-{number}")
        metrics.observe("offhook_turn_seconds", 1.0, f"odd-{number}")
    values = counted(metrics, "offhook_refer_updates")
    assert len(values) == MAX_SERIES + 1
    assert values["other",] == 200
    turns = next(one.histograms for one in metrics.counted() if one.name == "offhook_turn_seconds")
    assert len(turns) == MAX_SERIES + 1
    assert turns["other",].sum == 200


def test_a_name_or_labels_that_nobody_declared_are_a_fault() -> None:
    metrics = Metrics()
    with pytest.raises(KeyError):
        metrics.count("offhook_nothing")
    with pytest.raises(ValueError, match="labels"):
        metrics.count("offhook_rtp_packets")
    with pytest.raises(ValueError, match="labels"):
        metrics.observe("offhook_turn_seconds", 1.0)


def test_every_family_is_shown_before_anything_happened() -> None:
    assert [one.name for one in Metrics().counted()] == list(FAMILIES)


@pytest.mark.parametrize("name", FAMILIES)
def test_buckets_rise(name: str) -> None:
    buckets = FAMILIES[name].buckets
    assert list(buckets) == sorted(set(buckets))
