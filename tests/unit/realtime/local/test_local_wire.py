"""Messages to and from workers survive any cut of the stream."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.realtime.engines.local import wire


@given(
    st.lists(
        st.tuples(st.dictionaries(st.text(), st.integers(-(2**53), 2**53)), st.binary(max_size=300)),
        max_size=5,
    ),
    st.integers(1, 40),
)
def test_messages_come_out_as_they_went_in(messages, size):
    data = b"".join(wire.encode(header, body) for header, body in messages)
    decoder = wire.Decoder()
    found = []
    for at in range(0, len(data), size):
        found += decoder.receive_data(data[at : at + size])
    assert [(message.header, message.body) for message in found] == messages


@pytest.mark.parametrize("missing", [1, 5, 9])
def test_an_unfinished_message_is_waited_for(missing):
    data = wire.encode({"type": "x"}, b"body")
    decoder = wire.Decoder()
    assert decoder.receive_data(data[:-missing]) == []
    assert len(decoder.receive_data(data[-missing:])) == 1
