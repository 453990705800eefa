"""What the facts mean: findings, each with what would help. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .facts import (
    CertificateFacts,
    ClockFacts,
    Facts,
    LimitFacts,
    ModelFacts,
    NameFacts,
    NodeFacts,
    PortFacts,
    RehearsalFacts,
    WebhookFacts,
)
from .judge_database import judge_database, judge_stored
from .judge_network import judge_addresses, judge_firewall
from .verdict import Finding, fault, ok, warning

__all__ = ["Summary", "covers", "judge", "summarise"]

FILES_PER_CALL = 6
"Two media ports, a connection or two of its app's, one of an upstream, one to spare."
FILES_BESIDES = 200
CERTIFICATE_DAYS = (21, 7, 1)


def judge(facts: Facts) -> Iterator[Finding]:
    """Yield the findings, in the order in which one would look at things."""
    for port in facts.ports:
        yield _judge_port(port, facts.node)
    if facts.node is not None:
        yield from _judge_node(facts.node)
    if facts.addresses is not None:
        yield from judge_addresses(facts.addresses)
    if facts.firewall is not None:
        yield judge_firewall(facts.firewall)
    for name in facts.names:
        yield _judge_name(name)
    if facts.certificate is not None:
        yield from _judge_certificate(facts.certificate)
    if facts.clock is not None:
        yield _judge_clock(facts.clock)
    if facts.limits is not None:
        yield from _judge_limits(facts.limits)
    if facts.database is not None:
        yield from judge_database(facts.database)
    if facts.stored is not None:
        yield from judge_stored(facts.stored)
    for model in facts.models:
        yield from _judge_model(model)
    for webhook in facts.webhooks:
        yield _judge_webhook(webhook)
    for rehearsal in facts.rehearsals:
        yield _judge_rehearsal(rehearsal)


def _judge_port(port: PortFacts, node: NodeFacts | None) -> Finding:
    where = f"{port.key} {port.address}"
    match port.state:
        case "free":
            return ok("ports", f"{where} is free")
        case "held" if node is not None and ("offhook" in port.holder or not port.holder):
            return ok("ports", f"{where} is held by the node that runs")
        case "held":
            by = port.holder or "a program of another user"
            return fault(
                "ports",
                f"{where} is taken by {by}",
                f"End that program, or choose another port for {port.key}.",
            )
        case "no_address":
            return fault(
                "ports",
                f"{where}: this machine does not have that address",
                f"Name one of its own in {port.key} (`ip address` lists them). A public address behind NAT does not "
                "go there but into sip.public_host and media.public_ip.",
            )
        case "not_allowed":
            return fault(
                "ports",
                f"{where}: this user may not take that port",
                "Choose a port from 1024 up, or give the service CAP_NET_BIND_SERVICE.",
            )
        case _:
            return fault("ports", f"{where}: {port.text}", f"Correct {port.key}.")


def _judge_node(node: NodeFacts) -> Iterator[Finding]:
    if node.ready:
        yield ok("node", f"a node runs at {node.url} and takes calls")
    for reason in node.reasons:
        yield fault(
            "node",
            f"the node at {node.url} takes no calls: {reason}",
            "Look at its log. One that starts or drains needs a moment; else start it again.",
        )
    for text in node.warnings:
        yield warning("node", f"the node says: {text}", "What it says names the key or the file to change.")
    for trunk, state, text in node.registrations:
        if state == "registered":
            yield ok("node", f"trunk {trunk} is registered")
        else:
            yield warning(
                "node",
                f"trunk {trunk} is not registered: {state}, {text}",
                "Check registrar, user and password of that trunk's `register`, and that the registrar is reachable.",
            )


def _judge_name(name: NameFacts) -> Finding:
    if name.addresses:
        by = f", by {', '.join(name.ways)}" if name.ways else ""
        return ok("dns", f"{name.what}: {name.name} is {', '.join(name.addresses)}{by}")
    return fault(
        "dns",
        f"{name.what}: {name.name} has no address ({name.error or 'no A or AAAA record'})",
        "Correct the name, add the record, or mend this machine's resolver (/etc/resolv.conf).",
    )


def _judge_certificate(facts: CertificateFacts) -> Iterator[Finding]:
    if facts.absent:
        yield from _judge_chain(facts)
        return
    if facts.error:
        yield fault(
            "certificate",
            f"tls.cert {facts.cert} and tls.key {facts.key} cannot be used: {facts.error}",
            "Give the full chain and its key as PEM files that this user can read, or neither for a development CA.",
        )
        return
    if not facts.key_matches:
        yield fault(
            "certificate",
            f"{facts.key} is not the key of {facts.cert}",
            "Set tls.cert and tls.key to files that were made together.",
        )
    yield _judge_end(facts)
    yield from _judge_chain(facts)
    if facts.issuers_days_left is not None and facts.issuers_days_left <= CERTIFICATE_DAYS[1]:
        days = facts.issuers_days_left
        ends = f"ended {-days:.1f} days ago" if days <= 0 else f"ends in {days:.1f} days"
        yield (fault if days <= 0 else warning)(
            "certificate",
            f"the certificate that signed it, in {facts.cert}, {ends}",
            "Take the full chain anew from the CA: it has a later one.",
        )
    if facts.public_host and not any(covers(name, facts.public_host) for name in facts.names):
        yield (fault if facts.tls_outside else warning)(
            "certificate",
            f"the certificate is for {', '.join(facts.names) or 'no name'}, not for {facts.public_host}",
            "Get one for the name that callers and apps use, or set sip.public_host to a name that it has.",
        )


def _judge_end(facts: CertificateFacts) -> Finding:
    days = facts.days_left
    renew = "Renew it; a running node takes up the new files within a minute."
    if facts.begins_in_days > 0:
        return fault(
            "certificate",
            f"the certificate is not valid yet: it begins in {facts.begins_in_days:.1f} days",
            "Check this machine's clock, and the certificate's dates.",
        )
    if days <= 0:
        return fault("certificate", f"the certificate ended {-days:.1f} days ago", renew)
    if days <= CERTIFICATE_DAYS[2]:
        return fault("certificate", f"the certificate ends in {days * 24:.0f} hours", renew)
    if days <= CERTIFICATE_DAYS[1]:
        return warning("certificate", f"the certificate ends in {days:.0f} days: this week", renew)
    if days <= CERTIFICATE_DAYS[0]:
        return warning("certificate", f"the certificate ends in {days:.0f} days", renew)
    names = ", ".join(facts.names[:4])
    return ok("certificate", f"the certificate for {names} is good for {days:.0f} days")


def _judge_chain(facts: CertificateFacts) -> Iterator[Finding]:
    if facts.development:
        trust = f"Clients must trust {facts.ca}."
        if facts.tls_outside:
            yield warning(
                "certificate",
                "a development CA signed the certificate, and trunks from outside may come by TLS",
                f"{trust} Carriers will not: set tls.cert and tls.key to a certificate of a public CA.",
            )
        else:
            made = (
                "will sign the certificate, at the first start" if facts.absent else "signed the certificate"
            )
            yield ok("certificate", f"a development CA {made}", trust)
    elif facts.self_signed:
        yield warning(
            "certificate",
            "the certificate is signed by itself",
            "Every client must be told to trust it; carriers will not. Use a certificate of a public CA.",
        )
    elif facts.chain < 2:
        yield warning(
            "certificate",
            f"{facts.cert} has the certificate alone, without the one that signed it",
            "Use the full chain (`fullchain.pem`): many clients cannot find the rest by themselves.",
        )
    elif not facts.in_order:
        yield warning(
            "certificate",
            f"the certificates in {facts.cert} do not follow from each other",
            "Put the server's first, then the one that signed it, and so on.",
        )


def covers(pattern: str, host: str) -> bool:
    """Whether a certificate's name is for that host (RFC 6125): a `*` stands for one label, the first."""
    pattern, host = pattern.lower().rstrip("."), host.lower().strip("[]").rstrip(".")
    if pattern.startswith("*."):
        return host.partition(".")[2] == pattern[2:] and "." in pattern[2:]
    return pattern == host


def _judge_clock(clock: ClockFacts) -> Finding:
    remedy = "Let the system keep its clock: `timedatectl set-ntp true`, or chrony."
    if clock.skew_s is None:
        if clock.synchronised:
            return ok("clock", "the kernel says that its clock is synchronised")
        if clock.synchronised is False:
            return warning("clock", "the kernel says that nothing keeps its clock right", remedy)
        return ok(
            "clock",
            "whether the clock is right cannot be told: nothing that was asked says what time it is",
            "`timedatectl` shows whether it is synchronised. Receivers refuse webhooks that are 5 minutes off.",
        )
    ahead = "ahead of" if clock.skew_s > 0 else "behind"
    off = f"the clock is {abs(clock.skew_s):.0f} s {ahead} that of {clock.against}"
    if abs(clock.skew_s) >= 240:
        return fault("clock", f"{off}: receivers refuse webhooks that are 5 minutes off", remedy)
    if abs(clock.skew_s) >= 10:
        return warning("clock", off, remedy)
    return ok("clock", f"the clock agrees with that of {clock.against}")


def _judge_limits(limits: LimitFacts) -> Iterator[Finding]:
    wanted = limits.max_concurrent * FILES_PER_CALL + FILES_BESIDES
    text = f"{limits.files} file descriptors for {limits.max_concurrent} calls, which may want {wanted}"
    if limits.files < limits.max_concurrent * 2 + FILES_BESIDES:
        yield fault(
            "limits",
            f"{text}: not even enough for their sound",
            f"Raise the limit (`LimitNOFILE={wanted}` in the service's unit, or `ulimit -n {wanted}`), or lower "
            "calls.max_concurrent.",
        )
    elif limits.files < wanted:
        yield warning(
            "limits", text, f"`LimitNOFILE={wanted}` in the service's unit, or `ulimit -n {wanted}`."
        )
    else:
        yield ok("limits", text)
    if limits.port_pairs < limits.max_concurrent:
        yield warning(
            "limits",
            f"media.ports has {limits.port_pairs} pairs for {limits.max_concurrent} calls: the others get 503",
            "Widen media.ports (two for each call), and the firewall's rule with it; or lower calls.max_concurrent.",
        )
    if limits.rmem_max is not None and limits.rmem_max < limits.receive_buffer:
        yield warning(
            "limits",
            f"the kernel gives sockets {limits.rmem_max // 1024} kB of the {limits.receive_buffer // 1024} kB that "
            "Offhook asks for: bursts of packets may be lost",
            f"`sysctl -w net.core.rmem_max={limits.receive_buffer}`, and the same in /etc/sysctl.d.",
        )
    if limits.config_mode is not None and limits.config_mode & 0o077:
        yield warning(
            "limits",
            f"other users can read {limits.config_path}, which holds keys (mode {limits.config_mode & 0o777:o})",
            f"`chmod 600 {limits.config_path}`, or keep keys and passwords in files or the environment.",
        )


_ENGINE_REMEDIES = {
    "local": "The embedded voice needs `pip install 'offhook[local]'` and room for its models in data_dir; with "
    'engine.kind = "scripted", or [models] that lead to an upstream, it is not loaded.',
    "scripted": "Correct the file, or leave engine.script empty for the built-in script.",
    "sentence": "Correct the file or its path, or leave the key empty for the built-in sentence.",
}


def _judge_model(facts: ModelFacts) -> Iterator[Finding]:
    if facts.skipped:
        yield ok("models", f"{facts.kind}: {facts.skipped}")
        return
    if facts.error:
        what = "" if facts.kind == "sentence" else f"the {facts.kind} engine cannot start: "
        yield fault("models", f"{what}{facts.error}", _ENGINE_REMEDIES[facts.kind])
        return
    if facts.brain_error:
        yield fault(
            "models",
            f"the language model does not answer: {facts.brain_error}",
            "Check engine.brain.base_url, model and api_key.",
        )
    if facts.load_s is None:
        return
    if facts.hear_ms is None or facts.speak_ms is None:
        yield ok("models", f"the {facts.kind} engine starts in {facts.load_s:.1f} s")
        return
    speed = (
        f"the {facts.kind} engine loads in {facts.load_s:.1f} s; it speaks a sentence of {facts.seconds:.1f} s in "
        f"{facts.speak_ms:.0f} ms and hears it in {facts.hear_ms:.0f} ms"
    )
    if not facts.heard.strip():
        yield fault(
            "models",
            f"{speed}, but understands nothing of what it said itself",
            "The models may be damaged: remove data_dir/models, so that they are prepared anew.",
        )
    elif facts.hear_ms > 1000 * facts.seconds or facts.speak_ms > 1000 * facts.seconds:
        yield warning(
            "models",
            f"{speed}: slower than speech",
            "Give it a faster or less busy machine, or a model at an upstream ([models]).",
        )
    else:
        yield ok("models", speed)


def _judge_webhook(facts: WebhookFacts) -> Finding:
    where = f"{facts.project}, {facts.url}"
    if facts.error:
        return fault("webhooks", f"{where}: {facts.error}", _WEBHOOK_REMEDIES.get(facts.kind, _APP))
    if not facts.sent:
        return ok("webhooks", f"{where} takes connections", "--send sends it a signed test event.")
    status, took = facts.status or 0, f"after {facts.duration_ms:.0f} ms"
    if 200 <= status < 300:
        if facts.duration_ms > 5000:
            return warning(
                "webhooks",
                f"{where} answered {status} to a test event, but only {took}",
                "Callers wait as long. Answer at once, and do the work afterwards.",
            )
        return ok("webhooks", f"{where} answered {status} to a test event {took}")
    if status in (400, 401, 403):
        return fault(
            "webhooks",
            f"{where} answered {status} to a signed test event",
            "Most likely it has another secret: give the app this endpoint's secret (OPENAI_WEBHOOK_SECRET). If it "
            "refuses the unknown type webhook.test, answer 2xx to types that it does not know.",
        )
    if 300 <= status < 400:
        return fault(
            "webhooks", f"{where} redirects ({status})", "Redirects are not followed: set the final URL."
        )
    if status in (404, 405):
        return fault(
            "webhooks", f"{where} answered {status}", "Correct the path of the URL; it must take POST."
        )
    return fault("webhooks", f"{where} answered {status} to a test event", _APP)


_APP = "Look at the app's log."
_WEBHOOK_REMEDIES = {
    "dns": "Correct the host of the URL, or add its DNS record.",
    "connect": "Start the app, or correct host and port of the URL; a firewall may be in between.",
    "timeout": "The app or something before it does not answer: look at its log, and at firewalls in between.",
    "tls": "The app needs a certificate for that name, of a CA that this machine trusts.",
    "url": "Correct the URL.",
    "refused": "Give it a public https: URL; webhooks.allow_private and webhooks.allow_loopback of the configuration "
    "let endpoints made by API point further.",
    "protocol": "What listens there is no HTTP server, or ended the connection: correct host and port, or look at its "
    "log.",
}


def _judge_rehearsal(facts: RehearsalFacts) -> Finding:
    what = f"a call over {facts.transport}"
    if facts.error:
        return fault("call", f"{what} could not be tried: {facts.error}", "The text names what to change.")
    if not facts.answered:
        return fault(
            "call",
            f"{what} was not answered: {facts.cause}",
            "The ports above may be filtered on this machine itself (`iptables -L`); else please report it.",
        )
    if not facts.packets_in or not facts.heard_s:
        way = "the node heard nothing" if not facts.packets_in else "the caller heard nothing"
        return fault(
            "call",
            f"{what} was answered, but {way}",
            "UDP between this machine's own ports is filtered: look at its packet filter (`iptables -L`).",
        )
    if not facts.orderly:
        return warning("call", f"{what} had sound but did not end well: {facts.cause}", "Please report it.")
    text = f"{what}: answered in {facts.setup_ms:.0f} ms, sound both ways, ended by BYE"
    if not facts.replied:
        return warning(
            "call",
            f"{text}; the voice did not answer what was said",
            "The machine may be too busy just now: try again.",
        )
    return ok("call", text)


@dataclass(frozen=True, slots=True)
class Summary:
    """How many there are of each."""

    faults: int
    warnings: int


def summarise(findings: list[Finding]) -> Summary:
    return Summary(
        sum(one.level == "fault" for one in findings), sum(one.level == "warning" for one in findings)
    )
