"""What `offhook init` knows of each trunk: addresses with the date they were taken, and what to set there."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PRESETS", "Preset"]


@dataclass(frozen=True, slots=True)
class Preset:
    """One kind of trunk."""

    title: str
    sources: tuple[str, ...]
    "Signalling addresses; none: only you know them."
    taken: str
    "When, and for which regions."
    transport: str
    settings: tuple[str, ...]
    "What to set at the trunk, one line each."
    digest: bool = False
    "Whether the peer can answer a challenge."
    with_password: tuple[str, ...] = ()
    "What to set there besides, when it proves itself by a password."
    calls: str = "set the origination URI to"
    "What is done there with the URI."


PRESETS = {
    "twilio": Preset(
        "Twilio Elastic SIP Trunking",
        (
            "54.172.60.0/30",
            "54.244.51.0/30",
            "54.171.127.192/30",
            "35.156.191.128/30",
            "54.65.63.192/30",
            "54.169.127.128/30",
            "54.252.254.64/30",
            "177.71.206.192/30",
        ),
        "2026-11-21 (all regions)",
        "tls",
        (
            "Secure Trunking: on with transport=tls (it encrypts the sound too), off with transport=tcp or udp",
            "Call Transfer (SIP REFER): enabled, with PSTN transfer, if your app uses refer",
            "With transport=tls also set tls_hostname in [[projects.trunks]]: see docs/howto/trunks/twilio.md",
        ),
    ),
    "signalwire": Preset(
        "SignalWire",
        (),
        "",
        "udp",
        ("From and To may be anything: only the Request-URI, which this URI becomes, is looked at",),
        calls="send the number's calls to",
    ),
    "telnyx": Preset(
        "Telnyx",
        ("192.76.120.10/32", "64.16.250.10/32", "5.172.39.10/32", "5.172.39.25/32"),
        "2026-11-21 (US and EU alone)",
        "udp",
        (
            "An FQDN connection to this host; a second one is tried after 503, 480, 408 or no answer",
            "Transfers: they need a Diversion with a Telnyx number, and an active inbound call",
        ),
    ),
    "kamailio": Preset(
        "a Kamailio of your own",
        (),
        "",
        "udp",
        (
            "record_route() on what it sends here. When it adds two lines (r2=on), both must come through",
            "The user part of the Request-URI is the project's id, or one of its numbers. To is not looked at",
        ),
        digest=True,
        with_password=(
            "Its uac module answers the challenge: uac_auth(), with digest_user and digest_password, realm offhook",
        ),
        calls="send calls to",
    ),
}
