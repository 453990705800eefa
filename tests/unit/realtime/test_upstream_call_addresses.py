"""Where a hosted call's verbs and sidebands are, for each kind of upstream (API rows A01, A02, R01, S01)."""

import pytest

from offhook.realtime.engines.upstream.target import Upstream, call_sideband, call_verb

OPENAI = ("openai", "https://api.openai.com/v1", {})
AZURE = ("azure", "https://r.openai.azure.com", {})
LEGACY = ("azure", "https://r.openai.azure.com", {"api_version": "2025-04-01", "deployment": "d"})


@pytest.mark.parametrize(
    ("kind", "url", "more", "verb"),
    [
        (*OPENAI, "https://api.openai.com/v1/realtime/calls/rtc_1/refer"),
        ("openai", "wss://h/v1/realtime", {}, "https://h/v1/realtime/calls/rtc_1/refer"),
        ("offhook", "ws://127.0.0.1:8080/v1/", {}, "http://127.0.0.1:8080/v1/realtime/calls/rtc_1/refer"),
        (
            "other",
            "http://h/api/realtime?tenant=7&model=m",
            {},
            "http://h/api/realtime/calls/rtc_1/refer?tenant=7",
        ),
        (*AZURE, "https://r.openai.azure.com/openai/v1/realtime/calls/rtc_1/refer"),
        (*LEGACY, "https://r.openai.azure.com/openai/realtime/calls/rtc_1/refer?api-version=2025-04-01"),
        (
            "azure",
            "https://r.openai.azure.com/openai/realtime?api-version=p&deployment=d",
            {},
            "https://r.openai.azure.com/openai/realtime/calls/rtc_1/refer?api-version=p",
        ),
    ],
)
def test_a_verb_is_where_its_upstream_has_it(kind, url, more, verb):
    found, headers = call_verb(Upstream("u", url, key="k", kind=kind, **more), "rtc_1", "refer")
    assert found == verb
    assert headers == ({"api-key": "k"} if kind == "azure" else {"Authorization": "Bearer k"})


@pytest.mark.parametrize(
    ("kind", "url", "more", "sideband"),
    [
        (*OPENAI, "wss://api.openai.com/v1/realtime?call_id=rtc_1&x=+y"),
        (
            "other",
            "http://h/api/realtime?tenant=7&model=m",
            {},
            "ws://h/api/realtime?call_id=rtc_1&x=+y&tenant=7",
        ),
        (*AZURE, "wss://r.openai.azure.com/openai/v1/realtime?call_id=rtc_1&x=+y"),
        (
            *LEGACY,
            "wss://r.openai.azure.com/openai/realtime?call_id=rtc_1&x=+y&api-version=2025-04-01&deployment=d",
        ),
    ],
)
def test_a_sideband_keeps_the_apps_query_in_the_upstreams_form(kind, url, more, sideband):
    query = [("call_id", "rtc_1"), ("api-version", "the-app's"), ("deployment", "the-app's"), ("x", " y")]
    found, headers = call_sideband(Upstream("u", url, key="k", kind=kind, **more), query)
    assert found == sideband
    assert headers == ({"api-key": "k"} if kind == "azure" else {"Authorization": "Bearer k"})


def test_an_id_stays_one_part_of_the_path():
    url, headers = call_verb(Upstream("u", "https://h/v1"), "../a b?c#d", "accept")
    assert url == "https://h/v1/realtime/calls/..%2Fa%20b%3Fc%23d/accept"
    assert headers == {}
