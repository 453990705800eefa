"""Header fields: RFC 3261 sections 7.3, 20 and 25, and what trunks send."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.sip.headers import (
    MAX_PARAMS,
    ContentType,
    CSeq,
    HeaderError,
    Headers,
    Latin1Str,
    NameAddr,
    add_tag,
    canonical,
    parse_content_type,
    parse_cseq,
    parse_int,
    parse_name_addr,
    quote,
    split_list,
    unquote,
)
from offhook.sip.uri import SipUri
from offhook.sip.via import Via

ALICE = SipUri("sip", "alice", "atlanta.com")


class TestHeaders:
    def test_keeps_order_repeats_and_spelling(self) -> None:
        items = [("v", "1"), ("X-a", "2"), ("VIA", "3"), ("x-A", "4")]
        headers = Headers(items)
        assert list(headers) == items
        assert len(headers) == 4
        assert headers.get("Via") == "1"
        assert headers.get_all("via") == ["1", "3"]
        assert headers.get_all("X-A") == ["2", "4"]
        assert headers.get("Subject") is None

    @pytest.mark.parametrize(
        ("compact", "name"),
        # The IANA registry: RFC 3261 table 3 and the RFCs after it.
        [
            ("a", "Accept-Contact"),
            ("b", "Referred-By"),
            ("c", "Content-Type"),
            ("d", "Request-Disposition"),
            ("e", "Content-Encoding"),
            ("f", "From"),
            ("i", "Call-ID"),
            ("j", "Reject-Contact"),
            ("k", "Supported"),
            ("l", "Content-Length"),
            ("m", "Contact"),
            ("n", "Identity-Info"),
            ("o", "Event"),
            ("r", "Refer-To"),
            ("s", "Subject"),
            ("t", "To"),
            ("u", "Allow-Events"),
            ("v", "Via"),
            ("x", "Session-Expires"),
            ("y", "Identity"),
        ],
    )
    def test_compact_names(self, compact: str, name: str) -> None:
        assert canonical(compact) == canonical(compact.upper()) == canonical(name.lower()) == name
        headers = Headers([(compact, "x")])
        assert name in headers
        assert headers.get(name.upper()) == "x"
        assert Headers([(name, "x")]).get(compact) == "x"

    def test_canonical_names_with_capitals_of_their_own(self) -> None:
        assert canonical("CSEQ") == "CSeq"
        assert canonical("www-authenticate") == "WWW-Authenticate"
        assert canonical("x-twilio-callsid") == "X-Twilio-Callsid"

    def test_set_replaces_in_place_and_drops_repeats(self) -> None:
        headers = Headers([("a1", "x"), ("m", "1"), ("b1", "y"), ("Contact", "2")])
        headers.set("Contact", "3")
        assert list(headers) == [("a1", "x"), ("Contact", "3"), ("b1", "y")]
        headers.set("Expires", "60")
        assert list(headers)[-1] == ("Expires", "60")

    def test_set_first_keeps_the_others(self) -> None:
        headers = Headers([("Via", "1"), ("Via", "2")])
        headers.set_first("Via", "0")
        assert headers.get_all("Via") == ["0", "2"]
        with pytest.raises(KeyError):
            headers.set_first("Route", "x")

    def test_prepend_and_remove(self) -> None:
        headers = Headers([("Via", "1"), ("To", "x")])
        headers.prepend("Via", "0")
        assert headers.get_all("Via") == ["0", "1"]
        headers.remove("v")
        assert list(headers) == [("To", "x")]
        headers.remove("v")
        assert "Via" not in headers

    def test_a_copy_is_its_own(self) -> None:
        headers = Headers([("To", "x")])
        copy = headers.copy()
        copy.add("From", "y")
        copy.set("To", "z")
        assert list(headers) == [("To", "x")]
        assert headers != copy

    def test_values_over_lines_quotes_and_brackets(self) -> None:
        headers = Headers(
            [
                ("Contact", '"Bell, A. \\", B." <sip:a,b@c;x=1,2>;q=0.1 , <sip:d@e>'),
                ("m", "sip:f@g"),
                ("m", ", ,"),
            ]
        )
        assert headers.values("Contact") == [
            '"Bell, A. \\", B." <sip:a,b@c;x=1,2>;q=0.1',
            "<sip:d@e>",
            "sip:f@g",
        ]

    def test_record_routes_come_back_as_they_were(self) -> None:
        first = "<sip:152.42.144.114:5060;r2=on;lr;ftag=08;nat=yes>"
        second = "<sip:152.42.144.114:5061;transport=tls;r2=on;lr;ftag=08;nat=yes>"
        assert Headers([("Record-Route", f"{first},{second}")]).values("record-route") == [first, second]
        assert Headers([("Record-Route", first), ("Record-Route", second)]).values("record-route") == [
            first,
            second,
        ]

    def test_what_was_looked_up_is_looked_up_anew_after_each_change(self) -> None:
        headers = Headers([("Via", "1"), ("To", "x")])
        assert headers.are_single
        assert headers.get_all("Via") == ["1"]
        headers.prepend("v", "0")
        assert headers.get_all("Via") == ["0", "1"]
        assert headers.count("Via") == 2
        assert not headers.are_single
        headers.set_first("Via", "2")
        assert headers.get("v") == "2"
        headers.set("Via", "3")
        assert list(headers) == [("Via", "3"), ("To", "x")]
        headers.add("X-New", "y")
        assert headers.get("x-new") == "y"
        headers.remove("VIA")
        assert headers.get("Via") is None
        assert headers.count("Via") == 0
        assert "To" in headers

    def test_latin_1_survives_the_splitting_of_a_list(self) -> None:
        values = Headers([("Record-Route", Latin1Str("<sip:\xfc@a;lr>, <sip:b;lr>"))]).values("Record-Route")
        assert [type(value) for value in values] == [Latin1Str, Latin1Str]

    @pytest.mark.parametrize("value", ["a\r\nRoute: <sip:evil>", "a\nb", "a\rb"])
    def test_no_value_can_bring_a_header_of_its_own(self, value: str) -> None:
        headers = Headers([("To", "x")])
        for change in (headers.add, headers.set, headers.prepend, headers.set_first):
            with pytest.raises(HeaderError):
                change("To", value)
        with pytest.raises(HeaderError):
            Headers([("To", value)])
        assert list(headers) == [("To", "x")]

    @pytest.mark.parametrize("name", ["", "To ", "To:", "T\r\no", "Tö"])
    def test_names_are_tokens(self, name: str) -> None:
        with pytest.raises(HeaderError):
            Headers().add(name, "x")


class TestNameAddr:
    @pytest.mark.parametrize(
        ("text", "parsed"),
        [
            # RFC 3261 section 20.20 and others.
            (
                '"A. G. Bell" <sip:agb@bell-telephone.com> ;tag=a48s',
                NameAddr("A. G. Bell", SipUri("sip", "agb", "bell-telephone.com"), (("tag", "a48s"),)),
            ),
            (
                "sip:+12125551212@server.phone2net.com;tag=887s",
                NameAddr("", SipUri("sip", "+12125551212", "server.phone2net.com"), (("tag", "887s"),)),
            ),
            (
                "Anonymous <sip:c8oqz84zk7z@privacy.org>;tag=hyh8",
                NameAddr("Anonymous", SipUri("sip", "c8oqz84zk7z", "privacy.org"), (("tag", "hyh8"),)),
            ),
            ("<sip:alice@atlanta.com>", NameAddr("", ALICE)),
            ("sip:alice@atlanta.com", NameAddr("", ALICE)),
            ('""<sip:alice@atlanta.com>', NameAddr("", ALICE)),
            ('"<sip:x@y>" <sip:alice@atlanta.com>', NameAddr("<sip:x@y>", ALICE)),
            ('"a\\"b\\\\" <sip:alice@atlanta.com>', NameAddr('a"b\\', ALICE)),
            # Seen, and not all of it legal.
            ("Jürgen Groß <sip:alice@atlanta.com>", NameAddr("Jürgen Groß", ALICE)),
            ("+1 (303) 555-1111 <sip:alice@atlanta.com>", NameAddr("+1 (303) 555-1111", ALICE)),
            ("<tel:+13035551111>;tag=1", NameAddr("", SipUri("tel", "+13035551111", ""), (("tag", "1"),))),
            ("tel:+13035551111", NameAddr("", SipUri("tel", "+13035551111", ""))),
            ("<sip:alice@atlanta.com>;", NameAddr("", ALICE)),
            ("< sip:alice@atlanta.com >", NameAddr("", ALICE)),
            ("<urn:service:sos>", NameAddr("", "urn:service:sos")),
            ("<sip:a@b@c>", NameAddr("", "sip:a@b@c")),
            (
                '<sip:alice@atlanta.com>;icid="a;b=\\"c,>";x',
                NameAddr("", ALICE, (("icid", '"a;b=\\"c,>"'), ("x", None))),
            ),
        ],
    )
    def test_reads(self, text: str, parsed: NameAddr) -> None:
        assert parse_name_addr(text) == parsed
        assert parse_name_addr(str(parsed)) == parsed

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "<>",
            "alice",
            '"alice" sip:alice@atlanta.com',
            '"alice <sip:alice@atlanta.com>',
            "<sip:alice@atlanta.com",
            "<sip:alice@atlanta.com> x",
            "<sip:alice@atlanta.com>;;;;",
            "<sip:alice@atlanta.com>;ta g=1",
            '<sip:alice@atlanta.com>;tag="1',
            '<sip:alice@atlanta.com>;tag="1"2',
            "sip:alice@atlanta.com?x=y",
            "a b c",
            ">sip:alice@atlanta.com",
        ],
    )
    def test_refuses(self, text: str) -> None:
        with pytest.raises(HeaderError) as caught:
            parse_name_addr(text, "Refer-To")
        assert caught.value.header == "Refer-To"

    def test_parameters(self) -> None:
        parsed = parse_name_addr('<sip:alice@atlanta.com>;TAG=x;text="a \\"b\\"";empty')
        assert parsed.tag == "x"
        assert parsed.param("text") == 'a "b"'
        assert parsed.has_param("EMPTY")
        assert parsed.param("empty") is None
        assert parse_name_addr("<sip:alice@atlanta.com>;tag=").tag is None

    def test_add_tag(self) -> None:
        assert add_tag("sip:alice@atlanta.com", "1") == "sip:alice@atlanta.com;tag=1"
        assert add_tag("<sip:alice@atlanta.com>;", "1") == "<sip:alice@atlanta.com>;tag=1"
        assert add_tag("<sip:alice@atlanta.com>;tag=0", "1") == "<sip:alice@atlanta.com>;tag=0"
        assert add_tag("<sip:alice@a;tag=uri>", "1") == "<sip:alice@a;tag=uri>;tag=1"
        assert add_tag('"torn', "1") == '"torn'
        assert type(add_tag(Latin1Str('"\xfc" <sip:a@b>'), "1")) is Latin1Str


class TestOthers:
    def test_cseq(self) -> None:
        assert parse_cseq("4711 INVITE") == CSeq(4711, "INVITE")
        assert parse_cseq("0009   INVITE") == CSeq(9, "INVITE")
        assert parse_cseq("2147483647 BYE").number == 2**31 - 1
        assert str(CSeq(1, "ACK")) == "1 ACK"

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "1",
            "INVITE",
            "INVITE 1",
            "1 2 INVITE",
            "-1 INVITE",
            "2147483648 INVITE",
            "1 INV(ITE",
            "\u0661 BYE",
            "9" * 5000,
        ],
    )
    def test_cseq_refuses(self, text: str) -> None:
        with pytest.raises(HeaderError):
            parse_cseq(text)

    def test_content_type(self) -> None:
        parsed = parse_content_type('Multipart/Mixed ; Boundary="a;b"; charset=utf-8')
        assert parsed == ContentType("multipart", "mixed", (("Boundary", '"a;b"'), ("charset", "utf-8")))
        assert parsed.media_type == "multipart/mixed"
        assert parsed.param("boundary") == "a;b"
        assert str(parse_content_type("application/sdp")) == "application/sdp"

    @pytest.mark.parametrize(
        "text", ["", "sdp", "application/", "/sdp", "application/s dp", "a/b;;;c", "a/b;c d=e"]
    )
    def test_content_type_refuses(self, text: str) -> None:
        with pytest.raises(HeaderError):
            parse_content_type(text)

    def test_int(self) -> None:
        assert parse_int("Expires", " 0060 ") == 60
        assert parse_int("Expires", "4294967295") == 2**32 - 1
        assert parse_int("Expires", "0" * 5000) == 0

    @pytest.mark.parametrize(
        "text", ["", "-1", "+1", "1.5", "1_0", "0x1", "4294967296", "9" * 8000, "\u0661", "1 2"]
    )
    def test_int_refuses(self, text: str) -> None:
        with pytest.raises(HeaderError) as caught:
            parse_int("Expires", text)
        assert caught.value.header == "Expires"


@given(st.text())
def test_quoting_round_trip(text: str) -> None:
    assert unquote(quote(text)) == text


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n"), max_size=20)
tokens = st.text("abcXYZ09-.!%*_+`'~", min_size=1, max_size=10)


@given(
    names, tokens, st.lists(st.tuples(tokens, st.none() | tokens | names.map(quote)), max_size=4).map(tuple)
)
def test_name_addr_round_trip(name: str, user: str, params: tuple[tuple[str, str | None], ...]) -> None:
    address = NameAddr(name, SipUri("sip", user, "example.com"), params)
    assert parse_name_addr(str(address)) == address


@given(st.lists(st.builds(NameAddr, names, st.just(ALICE)), min_size=1, max_size=5))
def test_lists_split_where_they_were_joined(addresses: list[NameAddr]) -> None:
    joined = ", ".join(map(str, addresses))
    assert [parse_name_addr(element) for element in split_list(joined)] == addresses


def parse_expires(text: str) -> int:
    return parse_int("Expires", text)


garbage = st.text() | st.text('";,<>\\=: \t/?@aSIP2.0') | st.text("0123456789 INVITE")


@given(garbage)
def test_any_text_parses_or_raises_a_header_error(text: str) -> None:
    for parse in (Via.parse, parse_name_addr, parse_cseq, parse_content_type, parse_expires):
        try:
            parse(text)
        except HeaderError:
            pass
    assert all(split_list(text))


def test_parameters_have_a_cap() -> None:
    assert len(Via.parse("SIP/2.0/UDP h" + ";a" * MAX_PARAMS).params) == MAX_PARAMS
    with pytest.raises(HeaderError, match="100"):
        Via.parse("SIP/2.0/UDP h" + ";a" * (MAX_PARAMS + 1))


@pytest.mark.parametrize(
    "piece", ['"', ";", "<", ">", '\\"', '"<', ",", '";', "a=", "<,", '"\\', "\\", " ", "::"]
)
def test_hostile_repetition_does_not_hang(piece: str) -> None:
    # Linear work on this takes milliseconds, quadratic work half a minute and more.
    text = ("SIP/2.0/UDP h;" + piece * 500_000)[:500_000]
    start = time.process_time()
    for parse in (Via.parse, parse_name_addr, parse_content_type, split_list):
        try:
            parse(text)
        except HeaderError:
            pass
    assert time.process_time() - start < 5
