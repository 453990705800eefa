"""What the phone says of a call that was not answered."""

from typing import Any, cast

import pytest

from offhook.cli.phone.phone import CallPlan, Phone
from offhook.sip.endpoint import Leg
from offhook.sip.uri import SipUri


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("unreachable (tls: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed)", True),
        ("unreachable (tcp: Connection refused)", False),
    ],
)
def test_a_certificate_that_is_not_trusted_comes_with_the_remedy(reason: str, told: bool) -> None:
    phone = Phone(CallPlan(uri=SipUri.parse("sips:proj_test@127.0.0.1")), lambda *_, **__: None)
    phone.leg_refused(cast(Leg, None), None, reason)
    cause = cast(Any, phone)._outcome.cause
    assert reason in cause
    assert ("--ca" in cause) is told
