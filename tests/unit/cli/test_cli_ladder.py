"""The ladder is a function of the timeline that the API gives."""

import pytest
from rich.cells import cell_len

from offhook.calls.ladder import Arrow, Lane, Note, from_entry, from_timeline, printable, sip_label
from offhook.cli.ladder import draw, header

INVITE = (
    "INVITE sip:proj_demo@127.0.0.1:5060 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:40000;branch=z9hG4bK1\r\n"
    "CSeq: 1 INVITE\r\nContent-Length: 3\r\n\r\nv=0"
)


def entry(kind: str, title: str = "", ms: float = 0.0, **details: object) -> dict[str, object]:
    return {"at": "2026-11-21T12:00:00.000Z", "ms": ms, "kind": kind, "title": title, **details}


def lines(*rows: Arrow | Note, width: int = 80) -> list[str]:
    return [line.plain for line in draw(rows, width)]


@pytest.mark.parametrize(
    ("message", "label"),
    [
        (INVITE, "INVITE"),
        ("SIP/2.0 180 Ringing\r\nCSeq: 1 INVITE\r\n\r\n", "180 Ringing (INVITE)"),
        ("SIP/2.0 202 Accepted\r\ncseq : 2  REFER\r\n\r\n", "202 Accepted (REFER)"),
        ("REFER sip:a@b SIP/2.0\r\nRefer-To: <tel:+15550100>\r\n\r\n", "REFER to tel:+15550100"),
        ("REFER sip:a@b SIP/2.0\r\nr:<tel:+15550100>\r\n\r\n", "REFER to tel:+15550100"),
        (
            "NOTIFY sip:a@b SIP/2.0\r\nEvent: refer\r\nContent-Type: message/sipfrag\r\n\r\nSIP/2.0 180 Ringing\r\n",
            "NOTIFY 180 Ringing",
        ),
        ("NOTIFY sip:a@b SIP/2.0\r\nEvent: refer\r\n\r\n", "NOTIFY"),
        ("SIP/2.0 200 OK", "200 OK"),
        ("", ""),
    ],
)
def test_a_sip_message_is_named_in_a_few_words(message: str, label: str) -> None:
    assert sip_label(message) == label


def test_what_the_node_received_comes_from_the_caller_and_what_it_sent_goes_there() -> None:
    received = entry("sip", direction="in", message=INVITE)
    sent = entry("sip", direction="out", message="SIP/2.0 100 Trying\r\nCSeq: 1 INVITE\r\n\r\n")
    [first], [second] = from_entry(received), from_entry(sent)
    assert isinstance(first, Arrow)
    assert isinstance(second, Arrow)
    assert (first.source, first.target) == (Lane.CALLER, Lane.OFFHOOK)
    assert (second.source, second.target) == (Lane.OFFHOOK, Lane.CALLER)


def test_a_webhook_attempt_goes_to_the_app_with_its_outcome() -> None:
    [row] = from_entry(entry("webhook", "attempt 1 to ...", attempt=1, status=200, duration_ms=12.4))
    assert row == Arrow(0.0, Lane.OFFHOOK, Lane.APP, "webhook: 200 in 12 ms", "yellow")
    [failed, why] = from_entry(
        entry("webhook", "attempt 1 ...", attempt=1, status=None, error="connection refused", duration_ms=1)
    )
    assert isinstance(failed, Arrow)
    assert "no answer" in failed.label
    assert failed.style != row.style
    assert isinstance(why, Note)
    assert "connection refused" in why.text
    [exhausted] = from_entry(entry("webhook", "no more attempts: the call was decided"))
    assert isinstance(exhausted, Note)


def test_why_a_webhook_failed_is_said_in_full_and_again_only_when_it_changed() -> None:
    refused = "cannot connect to 127.0.0.1: 127.0.0.1 port 9099: Connection refused"
    told = "the endpoint said: invalid signature"
    attempts = [
        entry("webhook", attempt=1, status=None, error=refused, duration_ms=1),
        entry("sip", direction="in", message=INVITE),
        entry("webhook", attempt=2, status=None, error=refused, duration_ms=1),
        entry("webhook", attempt=3, status=400, error=told, duration_ms=1),
        entry("webhook", attempt=4, status=None, error=refused, duration_ms=1),
    ]
    drawn = "\n".join(lines(*from_timeline({"data": attempts}), width=120))
    assert drawn.count("webhook: no answer in 1 ms") == 3
    assert drawn.count("webhook: 400 in 1 ms") == 1
    assert drawn.count(refused) == 2
    assert drawn.count(told) == 1


def test_api_calls_and_the_sideband_come_from_the_app() -> None:
    for one in (entry("rest", "POST accept: 200", status=200), entry("sideband", "attached")):
        [row] = from_entry(one)
        assert isinstance(row, Arrow)
        assert (row.source, row.target) == (Lane.APP, Lane.OFFHOOK)


def test_times_are_seconds_since_the_call_began_and_an_unknown_kind_is_a_note() -> None:
    rows = from_timeline(
        {"data": [entry("call", "accepted", ms=1234.5), entry("from the future", "something", ms=2000)]}
    )
    assert [row.at for row in rows] == [1.2345, 2.0]
    assert isinstance(rows[1], Note)
    assert rows[1].text == "something"


def test_what_an_upstream_did_is_told_apart_from_what_was_said() -> None:
    told = [entry("upstream", "voice is open"), entry("usage", "30 tokens in, 60 out")]
    assert [row.text for row in from_timeline({"data": told}) if isinstance(row, Note)] == [
        "upstream: voice is open",
        "usage: 30 tokens in, 60 out",
    ]


def test_the_ladder_as_a_whole() -> None:
    drawn = lines(
        Arrow(0.0, Lane.CALLER, Lane.OFFHOOK, "INVITE"),
        Arrow(0.0051, Lane.OFFHOOK, Lane.APP, "webhook: 200 in 12 ms"),
        Arrow(0.02, Lane.APP, Lane.OFFHOOK, "POST accept: 200"),
        Note(12.5, Lane.APP, "ALLOW"),
        width=60,
    )
    assert [header(60).plain, *drawn] == [
        "       caller                  Offhook                   app",
        "    0.000 │─ INVITE ─────────────▶│                       │",
        "    0.005 │                       │─ webhook: 200 in 1… ─▶│",
        "    0.020 │                       │◀─ POST accept: 200 ───│",
        "   12.500 │                       │                 ALLOW │",
    ]


@pytest.mark.parametrize("width", [60, 80, 81, 100, 120])
def test_no_line_is_wider_than_the_terminal_and_bars_stand_under_each_other(width: int) -> None:
    rows = [
        Arrow(1.0, Lane.CALLER, Lane.OFFHOOK, "x" * 300),
        Arrow(1.0, Lane.APP, Lane.OFFHOOK, ""),
        Note(9999.9, Lane.OFFHOOK, "a note " * 40),
        Note(1.0, Lane.CALLER, "words " * 60, wide=True),
        Note(1.0, Lane.APP, "w" * 200),
    ]
    drawn = lines(*rows, width=width)
    assert len(header(width).plain) <= width
    assert {len(line) for line in drawn} == {width - 1}
    assert {line[10] for line in drawn} == {"│"}
    assert {line[-1] for line in drawn} <= {"│", "▶"}


def test_a_long_note_goes_on_below_without_a_time() -> None:
    drawn = lines(Note(1.0, Lane.CALLER, "word " * 40, wide=True))
    assert len(drawn) > 1
    assert drawn[0].startswith("    1.000 ")
    assert all(line.startswith(" " * 10) for line in drawn[1:])
    assert " ".join(line[10:].replace("│", "").strip() for line in drawn) == ("word " * 40).strip()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2Jowned\x07", "[2Jowned"),
        ("a\r\nb\tc", "a  b c"),
        ("\x9b31mred", "31mred"),
        ("abc\u202edcba", "abcdcba"),
        ("line\u2028separator", "lineseparator"),
        ("[bold]not markup[/bold] Grüße 日本", "[bold]not markup[/bold] Grüße 日本"),
    ],
)
def test_nothing_that_came_from_the_network_can_steer_the_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown
    for row in (Arrow(0, Lane.CALLER, Lane.OFFHOOK, text), Note(0, Lane.OFFHOOK, text, wide=True)):
        assert shown.split()[0] in "".join(lines(row))
        assert not any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 for line in lines(row) for char in line)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_scripts_of_wide_letters_without_blanks_stay_between_the_bars(width: int) -> None:
    drawn = lines(*from_entry(entry("said", "日本語のとても長い文章です。" * 20)), width=width)
    assert len(drawn) > 5
    assert {cell_len(line) for line in drawn} == {width - 1}
