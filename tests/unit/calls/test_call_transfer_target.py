"""API row R15: target_uri goes into a SIP header, so it must be a URI and nothing else."""

import pytest

from offhook.calls.errors import CallError
from offhook.calls.target import check_target_uri


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
