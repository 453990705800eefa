"""Why nobody of the app decided: what became of `realtime.call.incoming`, and of the app's requests."""

from __future__ import annotations

from .record import Finding, Weight, find
from .story import Entry, Story, seconds

__all__ = ["attempts_of", "undecided"]

INCOMING = "realtime.call.incoming"
PATIENCE_S = 5.0
"An app that was told so long ago might have decided."
GIVES_UP_S = 2.0
"Who cancels sooner than this has hung up; no webhook could be blamed."


def attempts_of(story: Story, event_type: str = INCOMING) -> list[Entry]:
    return [e for e in story.of_kind("webhook") if e.text("type") == event_type and "attempt" in e.details]


def undecided(story: Story, until: Entry | None, at: float, weight: Weight, what: str) -> list[Finding]:
    """
    Return why there was no decision by the time `at`, which the entry `until` shows.

    `what` happened then, for sentences: `the carrier cancelled`. Empty when nobody can be blamed.
    """
    attempts = attempts_of(story)
    told = [each for each in attempts if _is_good(each) and _done(each) <= at]
    if told:
        return _told_but(story, min(told, key=_done), until, at, weight, what)
    late = [each for each in attempts if _is_good(each) and each.at <= at]
    if late:
        return [_late(story, min(late, key=_done), until, at, weight, what)] if at >= GIVES_UP_S else []
    by_endpoint: dict[str, list[Entry]] = {}
    for each in attempts:
        # One that was under way when it was decided counts: it was why.
        if each.at <= at:
            by_endpoint.setdefault(each.text("endpoint"), []).append(each)
    if not by_endpoint:
        nobody = next((e for e in story.of_kind("webhook") if e.value("endpoints") == 0), None)
        if nobody is not None:
            text = f"no webhook endpoint of the project wants realtime.call.incoming; {what}"
            return [find("nobody_subscribed", weight, text, nobody, until)]
        given_up = any("no more attempts" in entry.title for entry in story.of_kind("webhook"))
        if at < GIVES_UP_S or story.invite is None or given_up:
            return []
        text = f"your webhook had not answered when {what} at {seconds(at)}"
        return [find("webhook_slow", weight, text, story.invite, until)]
    found = [_failed(each, until, at, weight, what) for each in by_endpoint.values()]
    return list({finding.code: finding for finding in reversed(found)}.values())[::-1]


def _is_good(attempt: Entry) -> bool:
    status = attempt.value("status")
    return status is not None and 200 <= status < 300


def _done(attempt: Entry) -> float:
    return attempt.at + (attempt.value("duration_ms") or 0.0) / 1000


def _late(story: Story, attempt: Entry, until: Entry | None, at: float, weight: Weight, what: str) -> Finding:
    took = seconds((attempt.value("duration_ms") or 0.0) / 1000)
    retried = f" (attempt {attempt.value('attempt') or 0:.0f}, begun at {seconds(attempt.at)})"
    text = f"your webhook answered after {took}{retried if attempt.at > 0.5 else ''}; {what} at {seconds(at)}"
    accept = _too_late(story, at)
    if accept is not None:
        text += f", and the accept came at {seconds(accept.at)}"
    return find("webhook_slow", weight, text, attempt, until, accept)


def _too_late(story: Story, at: float) -> Entry | None:
    return next((e for e in story.requests("accept") if e.at >= at and e.value("status") == 404), None)


def _told_but(
    story: Story, told: Entry, until: Entry | None, at: float, weight: Weight, what: str
) -> list[Finding]:
    """The app knew of the call."""
    knew = f"your webhook answered {told.value('status'):.0f} at {seconds(_done(told))}"
    verbs = story.requests("accept", "reject")
    refused = [e for e in verbs if e.at <= at and 400 <= (e.value("status") or 0) < 500]
    full = [e for e in verbs if e.at <= at and e.value("status") == 503]
    found: list[Finding] = []
    if refused:
        last = refused[-1]
        times = f" {len(refused)} times" if len(refused) > 1 else ""
        text = (
            f"your {last.text('verb')} was refused{times} with {last.value('status'):.0f} at {seconds(last.at)} "
            f"({_said(last)}), and {what} at {seconds(at)}"
        )
        found.append(find("accept_refused", weight, text, last, until))
    if full:
        last = full[-1]
        text = f"no engine was free for your accept at {seconds(last.at)} ({_said(last)}); {what} at {seconds(at)}"
        found.append(find("engine_full", weight, text, last, until))
    if found:
        return found
    if (accept := _too_late(story, at)) is not None:
        if at < GIVES_UP_S:
            return []
        text = f"{knew}, but its accept came at {seconds(accept.at)}; {what} at {seconds(at)}"
        return [find("accepted_too_late", weight, text, told, accept, until)]
    # Where it was this node that ended the ringing, the time set for it is patience enough.
    if until is not None and until.kind == "sip" and at - _done(told) < PATIENCE_S:
        return []
    text = f"{knew}, but your app neither accepted nor rejected; {what} at {seconds(at)}"
    return [find("never_accepted", weight, text, told, until)]


def _said(entry: Entry) -> str:
    return (entry.text("error") or "no reason given").rstrip(". ")[:200]


def _failed(attempts: list[Entry], until: Entry | None, at: float, weight: Weight, what: str) -> Finding:
    """No attempt at an endpoint got through: say it of the last."""
    last = attempts[-1]
    status, error = last.value("status"), last.text("error")
    times = f"{len(attempts)} attempts" if len(attempts) > 1 else "1 attempt"
    end = f"; after {times}, {what} at {seconds(at)}"
    url = last.text("endpoint")[:200]
    if status is None:
        # What is no fault of the endpoint's, or not known to be one, is not called one.
        code = _STOPPED.get(last.text("fault"), "unknown")
        return find(
            code, weight, f"your webhook {url} could not be told: {error or 'no answer'}{end}", last, until
        )
    code = _CODES.get(int(status)) or ("webhook_redirected" if 300 <= status < 400 else "webhook_error")
    text = f"your webhook {url} answered {status:.0f} ({error or 'no reason given'}){end}"
    return find(code, weight, text, last, until)


_CODES = {
    400: "webhook_unauthorized",
    401: "webhook_unauthorized",
    403: "webhook_unauthorized",
} | dict.fromkeys((404, 405, 410), "webhook_wrong_path")
_STOPPED = {
    "connect": "webhook_unreachable",
    "protocol": "webhook_unreachable",
    "dns": "webhook_dns",
    "tls": "webhook_tls",
    "timeout": "webhook_timeout",
    "url": "webhook_refused",
    "refused": "webhook_refused",
    "secret": "webhook_refused",
    "gone": "nobody_subscribed",
    "internal": "internal_error",
}
"Where an attempt without an HTTP status stopped."
