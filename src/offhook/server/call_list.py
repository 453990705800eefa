"""Which calls a list is asked for, by its query."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query

from offhook.calls.past import CallQuery

__all__ = ["ListQuery"]


def _list_query(
    state: Annotated[
        str | None,
        Query(
            description="`ringing`, `accepted`, `answered`, `active` or `ended`; "
            "hosted calls also `unknown`, `rejected` and `referred`."
        ),
    ] = None,
    sip_call_id: Annotated[str | None, Query(description="The SIP Call-ID.")] = None,
    carrier_call_id: Annotated[
        str | None, Query(description="The carrier's own id, such as Twilio's CallSid.")
    ] = None,
    number: Annotated[str | None, Query(description="Part of From, To or the Request-URI.")] = None,
    created_after: Annotated[float | None, Query(description="Unix seconds.")] = None,
    created_before: Annotated[float | None, Query(description="Unix seconds.")] = None,
) -> CallQuery:
    return CallQuery(None, state, sip_call_id, carrier_call_id, number, created_after, created_before)


ListQuery = Annotated[CallQuery, Depends(_list_query)]
"Of all projects: who handles it says of which."
