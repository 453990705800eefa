"""Who may speak on a call's port, and where its sound goes."""

from hypothesis import given
from hypothesis import strategies as st

from offhook.media.latch import MAX_CANDIDATES, MAX_STEP, PROBATION, PROBATION_S, Latch

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
    answers = [
        latch.admit(NAT, 1, sequence, b"%d" % sequence, float(at))
        for at, sequence in enumerate([65534, 65535, 0, 1])
    ]
    assert answers[:3] == [None] * 3
    assert answers[3] == [(b"65534", 0.0), (b"65535", 1.0), (b"0", 2.0), (b"1", 3.0)]
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


def flood(latch, source, seconds, *, start=0.0, every=0.02, ssrc=1, first=0):
    """Send at a steady pace, and return when it was let in."""
    for number in range(int(seconds / every)):
        now = start + number * every
        if latch.source == source:
            return None
        if latch.admit(source, ssrc, first + number, b"", now) is not None:
            return now
    return None


def test_a_source_must_send_for_a_while_however_fast():
    for every in (0.01, 0.02, 0.06):
        latch = Latch(SDP)
        let_in = flood(latch, NAT, 2, every=every)
        assert PROBATION_S <= let_in < PROBATION_S + 0.1


def test_loss_does_not_keep_a_source_on_probation():
    latch = Latch(SDP)
    lost = {5, 9, 14, 15, 20}
    for number in range(40):
        if number not in lost:
            latch.admit(NAT, 1, number, b"", number * 0.02)
    assert latch.source == NAT
    jumping = Latch(SDP)
    for number in range(40):
        jumping.admit(NAT, 1, number * (MAX_STEP + 2), b"", number * 0.02)
    assert jumping.source is None


def test_a_flood_from_before_the_start_does_not_beat_the_sdps_address():
    """The flood is there first and twice as fast; the caller's first packet is 400 ms later."""
    latch = Latch(SDP)
    assert flood(latch, THIRD, 0.4, every=0.01) is None
    assert latch.destination == SDP
    assert latch.admit(SDP, 5, 1, b"x", 0.4) == [(b"x", 0.4)]
    assert flood(latch, THIRD, 5, every=0.01, start=0.4, first=40) is None
    assert (latch.source, latch.destination, latch.foreign) == (SDP, SDP, 540)


def test_behind_a_nat_the_signallings_host_need_not_wait():
    latch = Latch(("10.0.0.5", 4000), signalling_host=NAT[0])
    assert send(latch, THIRD, [1]) == [None]
    answers = [latch.admit(NAT, 1, number, b"", 0.02 * number) for number in range(PROBATION)]
    assert answers[-1] is not None
    assert latch.destination == NAT


def test_a_neighbour_on_the_peers_own_host_waits_like_all():
    """Where the SDP and the signalling name one host, another port of it is nobody in particular."""
    latch = Latch(SDP, signalling_host=SDP[0])
    neighbour = (SDP[0], 9999)
    assert flood(latch, neighbour, 0.4) is None
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
