"""What a peer says cannot break the log: one event is one line, whoever reads it."""

import io
import json
import logging
import unicodedata

from offhook import logs


def test_an_event_is_one_line_of_plain_characters() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.JsonLines())
    logger = logging.Logger("peer")
    logger.addHandler(handler)
    said = "".join(map(chr, range(0x100))) + "\u2028\u2029 Zoë ☎"

    logger.info("said", extra={"target_uri": said})

    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["target_uri"] == said
    assert not [one for one in line if unicodedata.category(one) in ("Cc", "Zl", "Zp")]
