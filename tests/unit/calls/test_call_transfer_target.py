"""API row R15: target_uri goes into a SIP header, so it must be a URI and nothing else."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.calls.errors import CallError
from offhook.calls.target import TargetPattern, check_target_uri
from offhook.sip.uri import SipUri


@pytest.mark.parametrize(
    "target",
    [
        "tel:+14155550123",
        "sip:agent@example.com",
        "sips:agent@example.com;transport=tls",
        "SIP:a@[2001:db8::1]:5060",
    ],
)
def test_good_targets_are_kept_as_they_are(target):
    assert check_target_uri(target) == target


def test_blanks_around_it_are_dropped():
    assert check_target_uri(" tel:+1 ") == "tel:+1"


@pytest.mark.parametrize(
    "target",
    [
        None, 5, "", "   ", "+14155550123", "http://example.com", "tel:", "sip:a@b>\r\nX-Evil: 1",
        "sip:a@b\nX: 1", "sip:a@b>,<sip:c@d", "sip:a b@c", 'sip:"a"@b', "sip:ä@b", "sip:a@b\x00", ["tel:+1"],
    ],
)  # fmt: skip
def test_anything_else_is_a_400_that_names_the_field(target):
    with pytest.raises(CallError) as caught:
        check_target_uri(target)
    assert (caught.value.status, caught.value.param, caught.value.retry) == (400, "target_uri", False)


@pytest.mark.parametrize(
    "target",
    [
        "tel:+1(415)555-0123",
        "tel:5550123;phone-context=+1415",
        "tel:*67#",
        "sip:+14155550123@trunk.pstn.twilio.com:5061;user=phone;transport=tls",
        "sip:example.com",
        "sip:a@b?Replaces=c%40d%3Bto-tag%3D1%3Bfrom-tag%3D2",
        "sip:a@b?Replaces=x%3Bto-tag%3D1%3Bfrom-tag%3D2&Require=replaces&X-Why=warm",
        "sip:a@b;method=INVITE",
    ],
)
def test_targets_that_carriers_take(target):
    assert check_target_uri(target) == target


@pytest.mark.parametrize(
    "target",
    [
        "tel:+1\r\n", "\ntel:+1", "tel:+1\x7f", "sip:a@b\tc", "sip:a@b>", "sip:a@b;x=\\",
        "tel:;x=1", "tel:abc", "tel:+", "tel:+1?x=y", "tel:+1 2", "sip:@b", "sip:a@", "sip:a@b:99999", "sip:a@b@c",
        "sip:a@b?Route=x", "sip:a@b?X-A=1&Contact=y", "sip:a@b?From", "sip:a@b?%52oute=x",
        "sip:a@b?body=x", "sip:a@b?=x",
        "sip:a@b?X-A=1%0d%0aB:c", "sip:a%00@b", "sip:a%7f@b", "sip:a%4@b", "sip:a%zz@b",
        "sip:a@b;method=BYE", "sip:a@b;METHOD=refer", "javascript:1", "mailto:a@b",
        "tel:+" + "1" * 508, "sip:" + "a" * 100_000,
    ],
)  # fmt: skip
def test_what_could_be_read_in_another_way_is_a_400(target):
    with pytest.raises(CallError) as caught:
        check_target_uri(target)
    assert (caught.value.status, caught.value.param) == (400, "target_uri")


def test_the_longest_target():
    assert len(check_target_uri("tel:+" + "1" * 507)) == 512


@pytest.mark.parametrize(
    ("target", "allowed"),
    [
        ("tel:+14155550123", ["tel:+1"]),
        ("tel:+1-415-555-0123", ["tel:+1415"]),
        ("tel:5550123;phone-context=+1415", ["tel:+1415"]),
        ("tel:+1", ["sip:*@x", "tel:*"]),
        ("sip:desk@example.com", ["sip:*@example.com"]),
        ("sip:desk@EXAMPLE.com:5070;transport=tls", ["SIP:*@example.com"]),
        ("sips:desk@example.com", ["sip:desk@example.com"]),
        ("sip:+14155550123@eu.trunk.example", ["sip:+1*@*.trunk.example"]),
        ("sip:%2B1415@trunk.example", ["sip:+1*@trunk.example"]),
        ("sip:example.com", ["sip:example.com"]),
    ],
)
def test_targets_on_the_list(target, allowed):
    assert check_target_uri(target, allowed) == target


@pytest.mark.parametrize(
    ("target", "allowed"),
    [
        ("tel:+19005550123", ["tel:+1415", "tel:+44"]),
        ("tel:5550123", ["tel:+1"]),
        ("tel:14155550123;phone-context=+1900", ["tel:1415", "tel:+1415"]),
        ("sip:+14155550123@trunk.example", ["tel:+1"]),
        ("tel:+14155550123", ["sip:*@trunk.example"]),
        ("sip:desk@example.com.evil.example", ["sip:*@example.com"]),
        ("sip:desk@evilexample.com", ["sip:*@*.example.com"]),
        ("sip:desk@example.com;maddr=192.0.2.66", ["sip:*@example.com"]),
        ("sip:desk@example.com", ["sips:*@example.com"]),
        ("sip:%2B1900@trunk.example", ["sip:+1415*@trunk.example"]),
        ("sip:boss@example.com", ["sip:desk@example.com"]),
    ],
)
def test_targets_off_the_list_are_a_403(target, allowed):
    with pytest.raises(CallError) as caught:
        check_target_uri(target, allowed)
    assert (caught.value.status, caught.value.code, caught.value.param) == (
        403,
        "target_not_allowed",
        "target_uri",
    )


@pytest.mark.parametrize(
    "pattern", ["", "+1", "tel:", "tel:x", "http://a", "sip:", "sip:@b", "sip:a@", "sip:a@b;x=y", "sip:a b@c"]
)
def test_a_pattern_that_is_none_is_named(pattern):
    with pytest.raises(ValueError, match="no pattern"):
        TargetPattern.parse(pattern)


@given(st.text("ab*", max_size=8), st.text("ab", max_size=10))
def test_a_star_stands_for_any_characters(pattern, text):
    expected = re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), text) is not None
    uri = SipUri("sip", text or "x", "h")
    if text and pattern:
        assert TargetPattern("sip", pattern, "h").matches(uri) is expected
