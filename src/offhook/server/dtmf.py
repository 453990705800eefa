"""The body of `POST /v1/realtime/calls/{id}/dtmf`."""

from __future__ import annotations

from typing import Any, Final, cast, get_args

from offhook.calls.dtmf import DigitOrder, Method
from offhook.calls.errors import CallError
from offhook.media.dtmf import PAUSES_MS, check_digits

from .body import refuse_unknown, type_name

__all__ = ["DTMF_SCHEMA", "digit_order"]

MAX_DIGITS: Final = 64
DURATION_MS: Final = (40, 5000)
GAP_MS: Final = (40, 5000)
METHODS: Final = get_args(Method)


def digit_order(body: dict[str, Any]) -> DigitOrder:
    """Judge the body. Raises `CallError` 400 that names the parameter."""
    refuse_unknown(body, ("digits", "duration_ms", "gap_ms", "method"))
    return DigitOrder(
        digits=_digits(body),
        duration_ms=_milliseconds(body, "duration_ms", 100, DURATION_MS),
        gap_ms=_milliseconds(body, "gap_ms", 60, GAP_MS),
        method=_method(body),
    )


def _digits(body: dict[str, Any]) -> str:
    if "digits" not in body:
        raise CallError(
            400, "Missing required parameter: 'digits'.", code="missing_required_parameter", param="digits"
        )
    digits = body["digits"]
    if not isinstance(digits, str):
        raise _wrong_type("digits", "a string", digits)
    if not 0 < len(digits) <= MAX_DIGITS:
        raise _wrong_value("digits", f"give 1 to {MAX_DIGITS} digits and pauses")
    try:
        digits = check_digits(digits, pauses=True)
    except ValueError as error:
        raise _wrong_value("digits", str(error)) from None
    if all(each in PAUSES_MS for each in digits):
        raise _wrong_value("digits", "there are only pauses in it")
    return digits


def _milliseconds(body: dict[str, Any], name: str, default: int, limits: tuple[int, int]) -> int:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong_type(name, "an integer", value)
    if not limits[0] <= value <= limits[1]:
        raise _wrong_value(name, f"{value} is not from {limits[0]} to {limits[1]}")
    return value


def _method(body: dict[str, Any]) -> Method:
    method = body.get("method")
    if method is None:
        return "auto"
    if not isinstance(method, str):
        raise _wrong_type("method", "a string", method)
    if method not in METHODS:
        raise _wrong_value("method", f"use one of {', '.join(METHODS)}")
    return cast(Method, method)


def _wrong_type(name: str, wanted: str, value: object) -> CallError:
    return CallError(
        400,
        f"Invalid type for '{name}': expected {wanted}, but got {type_name(value)} instead.",
        code="invalid_type",
        param=name,
    )


def _wrong_value(name: str, why: str) -> CallError:
    return CallError(400, f"Invalid value for '{name}': {why}.", code="invalid_value", param=name)


DTMF_SCHEMA: Final[dict[str, Any]] = {
    "required": ["digits"],
    "properties": {
        "digits": {
            "type": "string",
            "description": "`0`-`9`, `*`, `#`, `A`-`D`; `w` waits half a second, `,` two.",
            "pattern": "^[0-9*#A-Da-dw,]+$",
            "minLength": 1,
            "maxLength": MAX_DIGITS,
        },
        "duration_ms": {
            "type": ["integer", "null"],
            "minimum": DURATION_MS[0],
            "maximum": DURATION_MS[1],
            "default": 100,
        },
        "gap_ms": {
            "type": ["integer", "null"],
            "minimum": GAP_MS[0],
            "maximum": GAP_MS[1],
            "default": 60,
        },
        "method": {"type": ["string", "null"], "enum": [*METHODS, None], "default": "auto"},
    },
}
