"""What a form sends: read within limits that hold before anybody is logged in, and from our own pages only."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from urllib.parse import parse_qs, urlsplit

from starlette.requests import Request

from offhook.calls.errors import CallError

from ..body import read_body

__all__ = ["Form", "read_form", "refuse_other_sites"]

Form = Mapping[str, str]
"A form's fields; of one that is there twice, the first."

MAX_FORM = 64 * 1024
"Some thousand numbers or addresses of a project. Anybody may send a login's form, so it must cost little."
MAX_FIELDS = 200


async def read_form(request: Request) -> Form:
    """Return a form's fields. Raises `CallError` 400, 408 or 413."""
    body = await read_body(request)
    if len(body) > MAX_FORM:
        raise CallError(
            413, f"The form is larger than {MAX_FORM // 1024} kB. Send that much by /admin/api instead."
        )
    # Escapes take a while to undo: not between two packets.
    return await asyncio.to_thread(_parse, body)


def refuse_other_sites(request: Request) -> None:
    """SameSite cookies and the form's token say the same; a browser that tells where a form came from is believed."""
    site = request.headers.get("sec-fetch-site", "none")
    origin = request.headers.get("origin")
    foreign = origin is not None and urlsplit(origin).netloc != request.headers.get("host")
    if site not in ("same-origin", "none") or foreign:
        raise CallError(403, "This form came from another site.")


def _parse(body: bytes) -> Form:
    try:
        found = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise CallError(400, f"The form has more than {MAX_FIELDS} fields.") from None
    return {name: values[0] for name, values in found.items()}
