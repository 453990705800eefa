"""Digest authentication: RFC 7616 section 3.9, RFC 2617 section 3.5, RFC 8760, RFC 3261 section 22."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.sip import digest
from offhook.sip.digest import (
    Account,
    Challenger,
    DigestError,
    authorization,
    digest_response,
    find_challenge,
    parse_digest,
)

EXAMPLE = {
    "user": "Mufasa",
    "realm": "http-auth@example.org",
    "password": "Circle of Life",
    "method": "GET",
    "uri": "/dir/index.html",
    "nonce": "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
    "nc": "00000001",
    "cnonce": "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
}
ACCOUNT = Account("edge", "s3cret", "offhook")
URI = "sip:proj_x@192.0.2.1"


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_the_vectors_of_rfc_7616(algorithm, expected):
    assert digest_response(algorithm, **EXAMPLE) == expected


def test_the_vector_of_rfc_2617():
    response = digest_response(
        "MD5",
        user="Mufasa",
        realm="testrealm@host.com",
        password="Circle Of Life",
        method="GET",
        uri="/dir/index.html",
        nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093",
        nc="00000001",
        cnonce="0a4f113b",
    )
    assert response == "6629fae49393a05397450978507c4ef1"


def challenger():
    numbers = itertools.count()
    return Challenger(secret=b"k" * 32, new_token=lambda: f"{next(numbers):016x}")


def answer(headers, *, user="edge", password="s3cret", count=1, method="INVITE", pick=0):
    """Answer as a client would."""
    values = [value for _, value in headers]
    challenge = find_challenge(401, lambda name: values[pick:])
    return authorization(
        challenge, user=user, password=password, method=method, uri=URI, cnonce="c", count=count
    )


def test_sha_256_is_asked_for_before_md5():
    headers = challenger().challenges([ACCOUNT], now=0.0)
    assert [name for name, _ in headers] == ["WWW-Authenticate"] * 2
    fields = [parse_digest(value) for _, value in headers]
    assert [each["algorithm"] for each in fields] == ["SHA-256", "MD5"]
    assert {each["qop"] for each in fields} == {"auth"}
    assert {each["realm"] for each in fields} == {"offhook"}
    assert not any("stale" in each for each in fields)


@pytest.mark.parametrize("pick", [0, 1], ids=["SHA-256", "MD5"])
def test_the_right_answer_is_right_once(pick):
    asking = challenger()
    given_ = answer(asking.challenges([ACCOUNT], now=10.0), pick=pick)
    verdict = asking.judge([given_], "INVITE", [ACCOUNT], now=11.0)
    assert (verdict.outcome, verdict.account) == ("right", ACCOUNT)
    # The same count again is a replay.
    assert asking.judge([given_], "INVITE", [ACCOUNT], now=11.0).outcome == "stale"


def test_counts_may_overtake_each_other_and_none_counts_twice():
    asking = challenger()
    headers = asking.challenges([ACCOUNT], now=0.0)

    def use(count):
        return asking.judge([answer(headers, count=count)], "INVITE", [ACCOUNT], now=1.0).outcome

    assert [use(count) for count in (3, 1, 2, 200)] == ["right"] * 4
    assert [use(count) for count in (1, 2, 3, 200, 0, 100)] == ["stale"] * 6
    assert use(2**32 - 1) == "right"


@pytest.mark.parametrize(
    "change",
    [{"password": "S3cret"}, {"user": "Edge"}, {"user": "nobody"}, {"method": "BYE"}],
)
def test_a_wrong_answer_is_wrong(change):
    asking = challenger()
    given_ = answer(asking.challenges([ACCOUNT], now=0.0), **change)
    assert asking.judge([given_], "INVITE", [ACCOUNT], now=0.0).outcome == "wrong"


def test_an_old_nonce_is_stale_only_if_the_password_is_right():
    asking = challenger()
    headers = asking.challenges([ACCOUNT], now=0.0)
    later = digest.NONCE_LIFETIME + 1
    assert asking.judge([answer(headers)], "INVITE", [ACCOUNT], now=later).outcome == "stale"
    wrong = answer(headers, password="x")
    assert asking.judge([wrong], "INVITE", [ACCOUNT], now=later).outcome == "wrong"
    assert "stale=true" in asking.challenges([ACCOUNT], now=later, stale=True)[0][1]


def test_a_nonce_of_another_node_is_stale():
    foreign = Challenger(secret=b"x" * 32, new_token=lambda: "0" * 16).challenges([ACCOUNT], now=0.0)
    assert challenger().judge([answer(foreign)], "INVITE", [ACCOUNT], now=0.0).outcome == "stale"


def test_forgotten_counts_make_their_nonces_stale(monkeypatch):
    monkeypatch.setattr(digest, "USES_KEPT", 2)
    asking = challenger()
    answers = [answer(asking.challenges([ACCOUNT], now=float(at))) for at in range(3)]
    for given_ in answers:
        assert asking.judge([given_], "INVITE", [ACCOUNT], now=3.0).outcome == "right"
    assert asking.judge([answers[0]], "INVITE", [ACCOUNT], now=3.0).outcome == "stale"


def test_credentials_for_other_realms_are_none():
    asking = challenger()
    other = answer(asking.challenges([Account("edge", "s3cret", "elsewhere")], now=0.0))
    assert asking.judge([other], "INVITE", [ACCOUNT], now=0.0).outcome == "absent"
    assert asking.judge([], "INVITE", [ACCOUNT], now=0.0).outcome == "absent"
    ours = answer(asking.challenges([ACCOUNT], now=0.0))
    assert asking.judge([other, ours], "INVITE", [ACCOUNT], now=0.0).outcome == "right"


@pytest.mark.parametrize(
    "strip", ['cnonce="c", ', "qop=auth, ", ", nc=00000001", "nc=00000001", "algorithm=SHA-256"]
)
def test_an_answer_that_lacks_a_field_is_wrong(strip):
    asking = challenger()
    given_ = answer(asking.challenges([ACCOUNT], now=0.0))
    assert strip in given_
    assert asking.judge([given_.replace(strip, "")], "INVITE", [ACCOUNT], now=0.0).outcome == "wrong"


@pytest.mark.parametrize("value", ["Basic dTpw", "Digest a=1, a=2", "Digest realm", 'Digest =""'])
def test_what_cannot_be_read_is_an_error(value):
    with pytest.raises(DigestError):
        parse_digest(value)
    assert challenger().judge([value], "INVITE", [ACCOUNT], now=0.0).outcome == "wrong"


def test_quoted_commas_and_escapes_are_read():
    fields = parse_digest(r'Digest  realm="a, \"b\"",Nonce=x , qop="auth,auth-int"')
    assert fields == {"realm": 'a, "b"', "nonce": "x", "qop": "auth,auth-int"}


def test_a_trunk_may_do_with_one_algorithm():
    asking = challenger()
    old = Account("edge", "s3cret", "offhook", ("MD5",))
    (header,) = asking.challenges([old], now=0.0)
    assert "algorithm=MD5" in header[1]
    assert asking.judge([answer([header])], "INVITE", [old], now=0.0).outcome == "right"
    both = asking.challenges([old, Account("new", "x", "offhook")], now=0.0)
    assert ["SHA-256" in value for _, value in both] == [True, False]
    assert asking.judge([answer(both)], "INVITE", [old], now=0.0).outcome == "wrong"


def test_the_client_takes_the_topmost_challenge_it_can_answer():
    values = [
        'Digest realm="r", nonce="1", algorithm=SHA-512-256, qop="auth"',
        'Digest realm="r", nonce="2", algorithm=SHA-256, qop="auth-int"',
        'Digest realm="r", nonce="3", qop="auth-int, auth", opaque="o", stale=TRUE',
    ]
    found = find_challenge(407, lambda name: values if name == "Proxy-Authenticate" else [])
    assert (found.header, found.algorithm, found.nonce, found.opaque, found.stale) == (
        ("Proxy-Authorization", "MD5", "3", "o", True)
    )
    assert find_challenge(403, lambda name: values) is None


def test_the_client_answers_a_peer_without_qop():
    found = find_challenge(401, lambda name: ['Digest realm="r", nonce="n"'])
    fields = parse_digest(authorization(found, user="u", password="p", method="INVITE", uri=URI, cnonce="c"))
    assert "qop" not in fields
    assert "cnonce" not in fields
    expected = digest_response(
        "MD5", user="u", realm="r", password="p", method="INVITE", uri=URI, nonce="n", qop=""
    )
    assert fields["response"] == expected


def test_a_password_is_not_shown():
    assert "s3cret" not in repr(ACCOUNT)


@given(st.lists(st.text(max_size=200).map(lambda text: "Digest " + text), max_size=10))
def test_no_credentials_raise_anything(values):
    verdict = challenger().judge(values, "INVITE", [ACCOUNT], now=0.0)
    assert verdict.outcome in ("wrong", "absent")
