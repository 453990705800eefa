"""URIs: RFC 3261 section 19.1, RFC 3966, and what trunks send."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.sip.uri import SipUri, UriError

# The examples of RFC 3261 section 19.1.3.
EXAMPLES = {
    "sip:alice@atlanta.com": SipUri("sip", "alice", "atlanta.com"),
    "sip:alice:secretword@atlanta.com;transport=tcp": SipUri(
        "sip", "alice", "atlanta.com", params=(("transport", "tcp"),), password="secretword"
    ),
    "sips:alice@atlanta.com?subject=project%20x&priority=urgent": SipUri(
        "sips", "alice", "atlanta.com", headers="subject=project%20x&priority=urgent"
    ),
    "sip:+1-212-555-1212:1234@gateway.com;user=phone": SipUri(
        "sip", "+1-212-555-1212", "gateway.com", params=(("user", "phone"),), password="1234"
    ),
    "sips:1212@gateway.com": SipUri("sips", "1212", "gateway.com"),
    "sip:alice@192.0.2.4": SipUri("sip", "alice", "192.0.2.4"),
    "sip:atlanta.com;method=REGISTER?to=alice%40atlanta.com": SipUri(
        "sip", None, "atlanta.com", params=(("method", "REGISTER"),), headers="to=alice%40atlanta.com"
    ),
    "sip:alice;day=tuesday@atlanta.com": SipUri("sip", "alice;day=tuesday", "atlanta.com"),
}

# From captured traffic.
SEEN = {
    "sip:54.172.60.0:5061;transport=tls;r2=on;lr": SipUri(
        "sip", None, "54.172.60.0", 5061, (("transport", "tls"), ("r2", "on"), ("lr", None))
    ),
    "sip:mod_sofia@138.197.198.13:35181;transport=tls;swrad=138.197.198.13~36607~3": SipUri(
        "sip",
        "mod_sofia",
        "138.197.198.13",
        35181,
        (("transport", "tls"), ("swrad", "138.197.198.13~36607~3")),
    ),
    "sip:+159.65.244.171:5061;lr": SipUri("sip", None, "+159.65.244.171", 5061, (("lr", None),)),
    "sip:a/b+c@th1": SipUri("sip", "a/b+c", "th1"),
    "sip:user@[2001:db8::1]:5060;lr": SipUri("sip", "user", "2001:db8::1", 5060, (("lr", None),)),
    "sip:[2001:db8::1]": SipUri("sip", None, "2001:db8::1"),
    "tel:+13035551111": SipUri("tel", "+13035551111", ""),
    "tel:7042;phone-context=example.com": SipUri(
        "tel", "7042", "", params=(("phone-context", "example.com"),)
    ),
    "sip:anonymous@anonymous.invalid": SipUri("sip", "anonymous", "anonymous.invalid"),
    "isbn:2983792873": SipUri("isbn", "2983792873", ""),
    "sip:jürgen@example.com": SipUri("sip", "jürgen", "example.com"),
    "sip:under_score.example.com:65535": SipUri("sip", None, "under_score.example.com", 65535),
}


@pytest.mark.parametrize(("text", "uri"), [*EXAMPLES.items(), *SEEN.items()])
def test_reads_and_writes(text: str, uri: SipUri) -> None:
    assert SipUri.parse(text) == uri
    assert str(uri) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "alice@atlanta.com",
        ":alice@atlanta.com",
        "sip:",
        "sip:@atlanta.com",
        "sip:alice@",
        "sip:;lr",
        "sip:alice@atlanta.com:",
        "sip:alice@atlanta.com:port",
        "sip:alice@atlanta.com:65536",
        "sip:alice@atlanta.com:99999999999999999999",
        "sip:alice@atlanta.com:\u0661\u0662",
        "sip:alice@atlanta.com:+1",
        "sip:alice@[2001:db8::1",
        "sip:alice@2001:db8::1",
        "sip:alice@[2001:db8::1]5060",
        "sip:alice@[evil.example.com]",
        "sip:alice@at lanta.com",
        "sip:alice@atlanta.com\r\nX: y",
        "<sip:alice@atlanta.com>",
        'sip:"alice"@atlanta.com',
        "sip:alice@atlanta.com/path",
        "sip:alice\x00@atlanta.com",
        "tel:",
        "tel:;x=y",
        "tel:+1@host",
        "1sip:alice@atlanta.com",
        "urn:",
    ],
)
def test_refuses(text: str) -> None:
    with pytest.raises(UriError):
        SipUri.parse(text)


def test_a_second_at_sign_is_refused_since_it_would_decide_where_to_send() -> None:
    with pytest.raises(UriError, match="%40"):
        SipUri.parse("sip:alice@good.example.com@evil.example.com")
    with pytest.raises(UriError):
        SipUri.parse("sip:alice@good.example.com;x=@evil.example.com")


def test_scheme_and_parameter_names_have_no_case() -> None:
    uri = SipUri.parse("SIP:alice@atlanta.com;TRANSPORT=TLS;LR")
    assert uri.scheme == "sip"
    assert uri.transport == "tls"
    assert uri.has_param("lr")
    assert uri.param("lr") is None
    assert not uri.has_param("maddr")


def test_empty_parameters_are_skipped() -> None:
    assert SipUri.parse("sip:proj_x@host;;lr;").params == (("lr", None),)


def test_an_error_quotes_little_of_a_long_text() -> None:
    with pytest.raises(UriError) as caught:
        SipUri.parse("x" * 100_000)
    assert len(str(caught.value)) < 200


words = st.text("abcXYZ019-_.!~*'()%", min_size=1, max_size=12)
hosts = st.sampled_from(["example.com", "192.0.2.1", "2001:db8::1", "+159.1.2.3", "th1"])
params = st.lists(st.tuples(words, st.none() | words), max_size=4).map(tuple)
uris = st.builds(
    SipUri,
    st.sampled_from(["sip", "sips"]),
    st.text("abcXYZ019-_.!~*'()%&=+$,;?/", min_size=1, max_size=12),
    hosts,
    st.none() | st.integers(0, 65535),
    params,
    st.text("abc=&%", max_size=8),
    st.none() | words,
)


@given(uris)
def test_round_trip(uri: SipUri) -> None:
    assert SipUri.parse(str(uri)) == uri


@given(st.text() | st.text('sip:tel@;?[]<>.%0a \r\n"').map("sip:".__add__))
def test_any_text_parses_or_raises_a_uri_error(text: str) -> None:
    try:
        uri = SipUri.parse(text)
    except UriError:
        return
    assert SipUri.parse(str(uri)) == uri
