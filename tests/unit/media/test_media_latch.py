"""Who may speak on a call's port, and where its sound goes."""

from hypothesis import given
from hypothesis import strategies as st

from offhook.media.latch import MAX_CANDIDATES, PROBATION, Latch

SDP = ("192.0.2.1", 4000)
NAT = ("198.51.100.1", 31000)
THIRD = ("203.0.113.66", 6666)


def send(latch, source, sequences, ssrc=1):
    return [
        latch.admit(source, ssrc, sequence & 0xFFFF, b"%d" % sequence, float(sequence))
        for sequence in sequences
    ]


def test_the_sdps_address_is_believed_at_once():
    latch = Latch(SDP)
    assert latch.destination == SDP
    assert send(latch, SDP, [7]) == [[(b"7", 7.0)]]
    assert (latch.source, latch.learned) == (SDP, False)


def test_another_source_is_learned_after_packets_in_sequence():
    latch = Latch(SDP)
    answers = send(latch, NAT, [65534, 65535, 0, 1])
    assert answers[:3] == [None] * 3
    assert answers[3] == [(b"65534", 65534.0), (b"65535", 65535.0), (b"0", 0.0), (b"1", 1.0)]
    assert (latch.source, latch.destination, latch.learned) == (NAT, NAT, True)


def test_nothing_is_sent_to_a_source_on_probation():
    latch = Latch(SDP)
    send(latch, NAT, range(PROBATION - 1))
    assert latch.destination == SDP


def test_gaps_and_other_ssrcs_begin_the_probation_anew():
    latch = Latch(SDP)
    assert send(latch, NAT, [1, 2, 3, 5, 6, 7]) == [None] * 6
    assert send(latch, NAT, [8], ssrc=2) == [None]
    assert latch.source is None


def test_a_third_party_does_not_get_in_once_locked():
    for good, packets in ((SDP, 1), (NAT, PROBATION)):
        latch = Latch(SDP)
        send(latch, good, range(packets))
        assert send(latch, THIRD, range(100)) == [None] * 100
        assert latch.destination == good
        assert latch.foreign == 100


def test_the_sdps_address_takes_over_from_a_learned_one_and_not_back():
    latch = Latch(SDP)
    send(latch, THIRD, range(PROBATION))
    assert latch.destination == THIRD
    assert send(latch, SDP, range(PROBATION))[-1] is not None
    assert latch.destination == SDP
    assert send(latch, THIRD, range(50)) == [None] * 50
    assert latch.destination == SDP


def test_many_sources_do_not_keep_a_caller_out():
    latch = Latch(SDP)
    for round_ in range(PROBATION):
        last = send(latch, NAT, [round_])[0]
        for index in range(MAX_CANDIDATES - 1):
            if latch.source is None:
                send(latch, (f"203.0.113.{index}", 1000 + round_), [index])
    assert last is not None
    assert latch.source == NAT


def test_candidates_are_few():
    latch = Latch(SDP)
    for index in range(1000):
        send(latch, ("203.0.113.1", index), [index])
    assert len(latch._candidates) == MAX_CANDIDATES


def test_a_new_address_by_re_invite_is_where_sound_goes_at_once():
    latch = Latch(SDP)
    send(latch, NAT, range(PROBATION))
    latch.renegotiate(("192.0.2.2", 5000))
    assert latch.destination == ("192.0.2.2", 5000)
    assert send(latch, NAT, [9]) == [None]
    assert send(latch, ("192.0.2.2", 5000), [1])[0] is not None


def test_a_re_invite_that_changes_no_address_keeps_the_peer():
    latch = Latch(SDP)
    send(latch, NAT, range(PROBATION))
    latch.renegotiate(SDP)
    assert latch.destination == NAT
    assert send(latch, NAT, [77])[0] is not None
    assert latch.source == NAT


def test_after_a_re_invite_a_moved_nat_is_learned():
    latch = Latch(SDP)
    send(latch, NAT, range(PROBATION))
    latch.renegotiate(SDP)
    moved = ("198.51.100.1", 40000)
    send(latch, moved, range(PROBATION))
    assert latch.destination == moved


def test_ipv6_sources_have_four_parts():
    latch = Latch(("2001:db8::1", 4000))
    source = ("2001:db8::1", 4000, 0, 0)
    assert send(latch, source, [1])[0] is not None
    assert (latch.source, latch.learned) == (source, False)


sources = st.sampled_from([SDP, NAT, THIRD, ("203.0.113.7", 1)])


@given(st.lists(st.tuples(sources, st.integers(0, 5), st.integers(0, 1)), max_size=80))
def test_sound_only_ever_goes_to_the_sdp_or_to_who_sent_enough(packets):
    latch = Latch(SDP)
    count = {}
    for source, sequence, ssrc in packets:
        if source != latch.source:
            latch.admit(source, ssrc, sequence, b"", 0.0)
        count[source] = count.get(source, 0) + 1
        assert latch.destination == SDP or count[latch.destination] >= PROBATION
