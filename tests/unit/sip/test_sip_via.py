"""Via: RFC 3261 sections 18.2 and 20.42, RFC 3581, and what trunks send."""

import pytest

from offhook.sip.headers import HeaderError
from offhook.sip.via import Via


class TestVia:
    def test_reads_and_writes(self) -> None:
        text = "SIP/2.0/UDP pc33.atlanta.com:5066;branch=z9hG4bK776asdhds;rport"
        via = Via.parse(text)
        assert via == Via("UDP", "pc33.atlanta.com", 5066, (("branch", "z9hG4bK776asdhds"), ("rport", None)))
        assert via.branch == "z9hG4bK776asdhds"
        assert via.has_param("rport")
        assert via.rport is None
        assert via.received is None
        assert str(via) == text

    def test_white_space_where_the_grammar_allows_it(self) -> None:
        # RFC 3261 section 7.3.1 calls this one legal.
        via = Via.parse(
            "SIP / 2.0 / UDP first.example.com: 4000;ttl=16 ;maddr=224.2.0.1 ;branch=z9hG4bKa7c6a8dlze.1"
        )
        assert (via.host, via.port) == ("first.example.com", 4000)
        assert via.param("ttl") == "16"
        assert via.param("maddr") == "224.2.0.1"
        assert via.branch == "z9hG4bKa7c6a8dlze.1"

    def test_received_and_rport(self) -> None:
        via = Via.parse("SIP/2.0/UDP 10.1.1.1:4540;received=192.0.2.1;rport=9988;branch=z9hG4bKkjshdyff")
        assert (via.received, via.rport) == ("192.0.2.1", 9988)

    @pytest.mark.parametrize(
        "received", ["2a03:2880:f211:d1:face:b00c:0:699c", "[2a03:2880:f211:d1:face:b00c:0:699c]"]
    )
    def test_ipv6_in_received_with_and_without_brackets(self, received: str) -> None:
        via = Via.parse(f"SIP/2.0/TLS example.com:5061;received={received};branch=z9hG4bK1")
        assert via.received == "2a03:2880:f211:d1:face:b00c:0:699c"

    def test_ipv6_sent_by(self) -> None:
        assert Via.parse("SIP/2.0/UDP [2001:db8::9:1]:5070;branch=z9hG4bK1").port == 5070
        assert Via.parse("SIP/2.0/UDP 2001:db8::9:1;branch=z9hG4bK1").host == "2001:db8::9:1"
        assert str(Via("UDP", "2001:db8::1", 5060)) == "SIP/2.0/UDP [2001:db8::1]:5060"

    @pytest.mark.parametrize("rport", ["x", "65536", "-1", "\u0661", "9" * 5000, ""])
    def test_an_rport_that_is_no_port(self, rport: str) -> None:
        assert Via("UDP", "h", None, (("rport", rport),)).rport is None

    def test_with_param(self) -> None:
        via = Via.parse("SIP/2.0/UDP h;RPORT;branch=z9hG4bK1")
        answered = via.with_param("rport", "5070").with_param("received", "192.0.2.7")
        assert str(answered) == "SIP/2.0/UDP h;RPORT=5070;branch=z9hG4bK1;received=192.0.2.7"

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "SIP/2.0/UDP",
            "SIP/2.0 h",
            "HTTP/1.1/TCP h",
            "SIP/2.0/UDP h;;branch=x;;",
            "SIP/2.0/UDP h;=x",
            "SIP/2.0/UDP h:99999",
            "SIP/2.0/UDP h:;branch=x",
            'SIP/2.0/UDP h;branch="x',
            "SIP/2.0/U(DP h",
            "SIP/2.0/UDP h h;branch=x",
            "SIP/2.0/UDP h;branch=a b",
            "/ / /",
        ],
    )
    def test_refuses(self, text: str) -> None:
        with pytest.raises(HeaderError) as caught:
            Via.parse(text)
        assert caught.value.header == "Via"
        assert caught.value.value == text

    def test_one_semicolon_at_the_end_is_forgiven(self) -> None:
        assert Via.parse("SIP/2.0/UDP h;branch=z9hG4bK1;").params == (("branch", "z9hG4bK1"),)
