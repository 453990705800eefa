"""A registration against RFC 3261 section 10.2, on a clock that is handed in."""

import pytest

from offhook.sip.digest import parse_digest
from offhook.sip.headers import Headers
from offhook.sip.message import Response
from offhook.sip.registration import (
    BACKOFF_S,
    Ping,
    Registration,
    RegistrationConfig,
    RegistrationState,
    SendRegister,
)

CONTACT = "<sip:proj_a@192.0.2.9:5060>"
CHALLENGE = ("WWW-Authenticate", 'Digest realm="example.net", nonce="n1", algorithm=MD5, qop="auth"')


class Bench:
    """A registration, its clock, and what it said."""

    def __init__(self, **changes):
        self.now = 1000.0
        config = {
            "registrar": "sip:example.net",
            "user": "alice",
            "password": "secret",
            "contact_user": "proj_a",
            "expires_s": 600,
        } | changes
        self.machine = Registration(
            RegistrationConfig(**config), new_token=lambda: "c0ffee", draw=lambda: 1.0
        )
        self.sent = []
        self.pings = []
        self.machine.start(now=self.now)
        self.drain()

    def drain(self):
        for output in self.machine.outputs():
            if isinstance(output, SendRegister):
                self.sent.append((self.now, dict(output.headers)))
            elif isinstance(output, Ping):
                self.pings.append(self.now)

    def hear(self, status, *headers, udp=True):
        response = Response(status, "Because", headers=Headers(headers))
        self.machine.receive_response(response, now=self.now, contact=CONTACT, is_udp=udp)
        self.drain()

    def run_until(self, at):
        while (due := self.machine.next_timer()) is not None and due <= at:
            self.now = due
            self.machine.handle_timer(now=due)
            self.drain()
        self.now = at

    @property
    def state(self):
        return self.machine.status.state


def registered(**changes):
    bench = Bench(**changes)
    bench.hear(200, ("Contact", f"{CONTACT};expires=600"))
    return bench


def test_it_asks_for_its_expiry_and_is_registered_by_a_200():
    bench = Bench()
    assert bench.sent == [(1000.0, {"Expires": "600"})]
    bench.hear(200, ("Contact", f"{CONTACT};expires=600"))
    assert bench.state is RegistrationState.REGISTERED
    assert bench.machine.status.expires_at == 1600.0


@pytest.mark.parametrize(("granted", "refreshed_at"), [(600, 1540.0), (3600, 4540.0), (60, 1030.0)])
def test_it_refreshes_before_what_was_granted_ends(granted, refreshed_at):
    bench = Bench()
    bench.hear(200, ("Contact", f"{CONTACT};expires={granted}"))
    bench.run_until(refreshed_at - 0.1)
    assert len(bench.sent) == 1
    bench.run_until(refreshed_at)
    assert [at for at, _ in bench.sent] == [1000.0, refreshed_at]


def test_its_own_contact_counts_among_several():
    bench = Bench()
    others = '"x, y" <sip:bob@198.51.100.1>;expires=7200, <sip:proj_a@198.51.100.2:5060>;expires=30'
    bench.hear(200, ("Contact", others), ("Contact", f"{CONTACT};q=0.5;expires=120"), ("Expires", "9"))
    assert bench.machine.status.expires_at == 1120.0


def test_a_200_without_its_contact_is_a_failure():
    bench = Bench()
    bench.hear(200, ("Contact", "<sip:bob@198.51.100.1>;expires=7200"))
    assert bench.state is RegistrationState.FAILED
    assert "does not list our Contact" in bench.machine.status.text


def test_its_contact_with_the_address_that_the_registrar_saw_counts():
    """Behind a NAT, many registrars list the source of the REGISTER in place of what Contact said."""
    bench = Bench()
    others = "<sip:bob@198.51.100.1>;expires=7200"
    bench.hear(200, ("Contact", f"{others}, <sip:proj_a@203.0.113.9:61234;transport=udp>;expires=120"))
    assert bench.state is RegistrationState.REGISTERED
    assert bench.machine.status.expires_at == 1120.0


def test_the_expires_header_counts_where_contacts_have_none():
    bench = Bench()
    bench.hear(200, ("Contact", CONTACT), ("Expires", "300"))
    assert bench.machine.status.expires_at == 1300.0


def test_it_answers_a_challenge_once_and_uses_the_nonce_again():
    bench = Bench()
    bench.hear(401, CHALLENGE)
    fields = parse_digest(bench.sent[1][1]["Authorization"])
    assert (fields["username"], fields["uri"], fields["nc"]) == ("alice", "sip:example.net", "00000001")
    bench.hear(200, ("Contact", f"{CONTACT};expires=600"))
    bench.run_until(1540.0)
    assert parse_digest(bench.sent[2][1]["Authorization"])["nc"] == "00000002"


def test_a_proxy_is_answered_in_its_own_header():
    bench = Bench()
    bench.hear(407, ("Proxy-Authenticate", CHALLENGE[1]))
    assert "Proxy-Authorization" in bench.sent[1][1]


def test_a_second_challenge_means_that_the_password_is_wrong():
    bench = Bench()
    bench.hear(401, CHALLENGE)
    bench.hear(401, CHALLENGE)
    assert len(bench.sent) == 2
    assert bench.state is RegistrationState.FAILED
    assert "password" in bench.machine.status.text
    assert "secret" not in repr(bench.machine.config)


def test_a_stale_nonce_does_not():
    bench = Bench()
    bench.hear(401, CHALLENGE)
    bench.hear(401, ("WWW-Authenticate", CHALLENGE[1].replace("n1", "n2") + ", stale=true"))
    assert parse_digest(bench.sent[2][1]["Authorization"])["nonce"] == "n2"


def test_a_challenge_that_cannot_be_answered_says_so():
    bench = Bench()
    bench.hear(401, ("WWW-Authenticate", 'Digest realm="r", nonce="n", algorithm=AKAv1-MD5'))
    assert "no challenge that can be answered" in bench.machine.status.text


def test_423_raises_the_expiry_once():
    bench = Bench()
    bench.hear(423, ("Min-Expires", "1800"))
    assert bench.sent[1][1]["Expires"] == "1800"
    bench.hear(423, ("Min-Expires", "3600"))
    assert bench.state is RegistrationState.FAILED
    assert len(bench.sent) == 2


def test_423_without_a_number_is_a_failure():
    bench = Bench()
    bench.hear(423)
    assert bench.state is RegistrationState.FAILED


def test_failures_are_tried_again_ever_more_slowly():
    bench = Bench()
    gaps = []
    for _ in range(8):
        before = bench.sent[-1][0]
        bench.machine.request_failed("no answer", now=bench.now)
        bench.drain()
        bench.run_until(bench.machine.next_timer())
        gaps.append(bench.sent[-1][0] - before)
    assert gaps == [*BACKOFF_S, BACKOFF_S[-1], BACKOFF_S[-1]]


def test_retry_after_is_respected():
    bench = Bench()
    bench.hear(503, ("Retry-After", "120 (maintenance)"))
    assert bench.machine.next_timer() == 1120.0


def test_a_refresh_that_fails_leaves_it_registered_until_the_end():
    bench = registered()
    bench.run_until(1540.0)
    bench.machine.request_failed("no answer", now=bench.now)
    bench.drain()
    assert bench.state is RegistrationState.REGISTERED
    assert "no answer" in bench.machine.status.text
    bench.run_until(1549.9)
    assert len(bench.sent) == 2
    bench.run_until(1550.0)
    assert len(bench.sent) == 3
    bench.run_until(1600.0)
    assert bench.state is RegistrationState.FAILED


def test_a_lost_connection_is_replaced_soon():
    bench = registered()
    bench.now = 1100.0
    bench.machine.flow_lost(now=bench.now)
    bench.run_until(1101.0)
    assert len(bench.sent) == 2


def test_udp_is_kept_open_and_a_connection_is_not_this_machine_s_affair():
    bench = registered()
    bench.run_until(1101.0)
    assert bench.pings == [1025.0, 1050.0, 1075.0, 1100.0]
    other = Bench()
    other.hear(200, ("Contact", f"{CONTACT};expires=600"), udp=False)
    other.run_until(1101.0)
    assert other.pings == []


def test_the_end_asks_the_registrar_to_forget():
    bench = registered()
    bench.machine.end(now=bench.now)
    bench.drain()
    assert bench.sent[-1][1]["Expires"] == "0"
    assert bench.state is RegistrationState.ENDING
    bench.hear(401, CHALLENGE)
    assert "Authorization" in bench.sent[-1][1]
    bench.hear(200)
    assert bench.state is RegistrationState.ENDED
    assert bench.machine.next_timer() is None


def test_nobody_is_asked_to_forget_who_was_never_known():
    bench = Bench()
    bench.hear(403)
    bench.machine.end(now=bench.now)
    bench.drain()
    assert len(bench.sent) == 1
    assert bench.state is RegistrationState.ENDED
