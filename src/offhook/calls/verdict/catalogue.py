"""
Every verdict there is: what it means, whose affair it usually is, and what to do.

The how-to "Why did a call fail?" has this as its table; a test holds the two together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["CATALOGUE", "Blame", "Kind"]

Blame = Literal["app", "trunk", "caller", "node", "upstream", "nobody", "unknown"]


@dataclass(frozen=True, slots=True)
class Kind:
    blame: Blame
    means: str
    remedy: str = ""


CATALOGUE: Final[dict[str, Kind]] = {
    # Nothing was wrong.
    "ringing": Kind("nobody", "The call rings; nobody has decided yet."),
    "connecting": Kind("nobody", "Accepted; the engine warms, or the ACK is awaited."),
    "in_progress": Kind("nobody", "The call goes on, and nothing is wrong with it."),
    "caller_hung_up": Kind("nobody", "A call that ended as calls do: the caller hung up."),
    "app_hung_up": Kind("nobody", "A call that ended as calls do: your app hung up."),
    "transferred": Kind("nobody", "The caller was transferred."),
    "session_limit": Kind(
        "nobody",
        "The session reached its time limit.",
        "Raise calls.session_limit_s if calls may last longer.",
    ),
    "rejected": Kind("app", "Your app rejected the call.", "Nothing, if that was meant."),
    "answered_elsewhere": Kind(
        "nobody", "Somebody else, whom the trunk rang at the same time, took the call."
    ),
    "caller_gave_up": Kind(
        "caller", "The caller hung up while it rang, before anybody could be expected to decide."
    ),
    # Nobody decided.
    "webhook_unreachable": Kind(
        "app",
        "No connection to your webhook could be made.",
        "Start the server at the webhook's URL, or correct the URL; the node must be able to reach it.",
    ),
    "webhook_dns": Kind(
        "app",
        "Your webhook's host has no address.",
        "Correct the host name in the webhook's URL, or its DNS.",
    ),
    "webhook_tls": Kind(
        "app",
        "TLS with your webhook failed.",
        "Give the server a certificate for its name, with the whole chain; it is verified against public CAs.",
    ),
    "webhook_refused": Kind(
        "app",
        "Your webhook's URL or secret cannot be used.",
        "Use an https URL with a public address, or one from the configuration file, and a secret that begins whsec_.",
    ),
    "webhook_timeout": Kind(
        "app",
        "Your webhook took a connection and gave no answer in time.",
        "Answer the webhook at once and do the work afterwards; accept may be called from anywhere.",
    ),
    "webhook_slow": Kind(
        "app",
        "Your webhook answered after the carrier had cancelled, or not at all by then.",
        "Answer the webhook at once, accept within a few seconds, and let the trunk ring longer.",
    ),
    "webhook_unauthorized": Kind(
        "app",
        "Your webhook refused the delivery: most often its secret is not the endpoint's.",
        "Set your app's webhook secret to the endpoint's, verify the raw body, and check the server's clock.",
    ),
    "webhook_wrong_path": Kind(
        "app",
        "There is no webhook at that path, or not for POST.",
        "Correct the path in the webhook's URL; it must take POST.",
    ),
    "webhook_redirected": Kind(
        "app",
        "Your webhook answered with a redirect.",
        "Give the URL that it points to; redirects are not followed.",
    ),
    "webhook_error": Kind(
        "app",
        "Your webhook answered with an error.",
        "Look into your server's log at that time: the handler failed, or a proxy before it did.",
    ),
    "nobody_subscribed": Kind(
        "app",
        "No endpoint of the project is subscribed to realtime.call.incoming.",
        'Add an endpoint with events = ["realtime.call.incoming"] to the project.',
    ),
    "never_accepted": Kind(
        "app",
        "Your app got the webhook and neither accepted nor rejected.",
        "Call accept or reject for each realtime.call.incoming. If it does: a request with a wrong key (401), base URL "
        "or call id (404) leaves nothing here, only in your app's log.",
    ),
    "accept_refused": Kind(
        "app",
        "Your app's accept or reject was a bad request, and no good one followed.",
        "Correct the field that the error names; the call rings on meanwhile.",
    ),
    "accepted_too_late": Kind(
        "app",
        "Your app's accept came when the call was over (404).",
        "Accept within a few seconds of the webhook, and let the trunk ring longer.",
    ),
    "fallback_answered": Kind(
        "app",
        "Nobody accepted in time, and the project's fallback took the call.",
        "See what is said beside this for why your app did not.",
    ),
    "webhook_events_lost": Kind(
        "app",
        "An event of this call was never delivered.",
        "See what your endpoint answered, and deliver it again.",
    ),
    # The INVITE could not be taken.
    "no_common_codec": Kind(
        "trunk", "The offer has no codec that is spoken here.", "Enable PCMU or PCMA (G.711) on the trunk."
    ),
    "srtp_required": Kind(
        "trunk",
        "The project requires SRTP and the offer has none that can be used.",
        'Switch secure media (SRTP with SDES) on at the trunk, or set srtp = "optional".',
    ),
    "srtp_refused": Kind(
        "trunk",
        "The offer wants SRTP in a way that is not taken here.",
        'Set srtp = "optional" for the project, or have the trunk offer RTP/SAVP with a=crypto (SDES).',
    ),
    "offer_unusable": Kind(
        "trunk", "The offer, or the answer in the ACK, cannot be used.", "See the SDP in the INVITE or ACK."
    ),
    "project_full": Kind(
        "app", "The project had as many calls as it may have.", "Raise max_calls of the project."
    ),
    "node_full": Kind(
        "node",
        "The node had no room for another call.",
        "Raise calls.max_concurrent, media.ports or the engine's sessions as far as the machine goes, or add a node.",
    ),
    "source_full": Kind(
        "trunk",
        "Too many calls of one source were unanswered.",
        "Raise calls.max_unanswered_per_source if that many calls at once are meant.",
    ),
    "node_draining": Kind(
        "node",
        "The node was shutting down and took no new calls.",
        "Give the trunk a second node or URI to try.",
    ),
    "node_not_ready": Kind(
        "node", "The node had just started; its engine was not warm.", "Wait for /readyz."
    ),
    "engine_full": Kind(
        "node",
        "No engine was free for the call.",
        "Raise engine.max_sessions or engine.workers, or add a node.",
    ),
    # It was accepted, and could not be served.
    "engine_slow": Kind(
        "node",
        "The engine was not ready in time after the accept.",
        "Look at the machine's load at that time; fewer calls at once, or more workers.",
    ),
    "engine_failed": Kind(
        "node", "The engine failed during the call.", "The node's log has the reason at that time."
    ),
    "fallback_failed": Kind(
        "node", "Nobody accepted, and the project's fallback failed too.", "Correct the fallback."
    ),
    "fallback_stood_in": Kind(
        "node",
        "The engine that your app's accept asked for could not be had, and the project's fallback took the call.",
        "Look at that engine, or name a second one in [models].",
    ),
    "upstream_unreachable": Kind(
        "upstream",
        "No upstream could be reached.",
        "Check the upstream's url and the way there; name a second one in [models] for failover.",
    ),
    "upstream_refused": Kind(
        "upstream",
        "The upstream refused the session.",
        "Check the upstream's key, model name and the accept body against what it said.",
    ),
    "upstream_error": Kind(
        "upstream",
        "The upstream failed when the session was opened.",
        "Look at the upstream's status page; name a second upstream in [models] for failover.",
    ),
    "upstream_rate_limited": Kind(
        "upstream",
        "The upstream's rate or quota limit was reached.",
        "Raise the limit there, or name a second upstream in [models] for failover.",
    ),
    "upstream_lost": Kind(
        "upstream",
        "The connection to the upstream was lost, and could not be had again.",
        "Look at the upstream's status page; name a second upstream in [models] for failover.",
    ),
    "upstream_interrupted": Kind("upstream", "The connection to the upstream was lost and opened anew."),
    "response_failed": Kind(
        "node",
        "The agent's answer failed, and none came after it.",
        "See what the response says of its failure.",
    ),
    "slow_answers": Kind(
        "node",
        "The agent's answers came late.",
        "See where the time went: the turn's end, the transcript, the first text or the first sound.",
    ),
    "agent_never_spoke": Kind(
        "node",
        "An answer was asked for and the agent made no sound.",
        "See the engine's entries on the timeline.",
    ),
    "sideband_never_attached": Kind(
        "app",
        "Nobody spoke: no sideband was attached, so that nothing asked the agent for its first word.",
        "Attach to wss://.../v1/realtime?call_id=... after the accept and send response.create.",
    ),
    "no_response_asked": Kind(
        "app",
        "Nobody spoke: the sideband never asked for a first word.",
        "Send response.create when the sideband is open, for a greeting.",
    ),
    "hung_up_before_first_word": Kind(
        "caller", "The caller hung up before the agent's first word could be due."
    ),
    "tool_never_answered": Kind(
        "app",
        "The agent called a tool and no output came.",
        "Send conversation.item.create with a function_call_output for each function_call, then response.create.",
    ),
    # Signalling.
    "no_ack": Kind(
        "trunk",
        "Our 200 was never acknowledged.",
        "The 200 or its ACK is lost on the way: let SIP through both ways, and look at Contact and Record-Route.",
    ),
    "contact_unreachable": Kind(
        "node",
        "Our 200 was never acknowledged, and its Contact names an address that the peer cannot reach.",
        "Set sip.public_host to the address that the trunk calls.",
    ),
    "dialog_lost": Kind(
        "trunk",
        "The other end no longer knew the call, or could not be reached.",
        "See the routing entries: which hop was tried, and what it answered.",
    ),
    "bye_not_answered": Kind(
        "trunk",
        "The call was ended here, and the other end did not confirm it: the caller may have heard silence for a while.",
        "See the routing entries: where the BYE was sent, and by which Route.",
    ),
    "cut_off_by_trunk": Kind(
        "trunk",
        "The other end hung up and named a fault as its reason.",
        "Ask the trunk about the reason in its BYE; a timer there often means that it heard nothing from here.",
    ),
    "session_timer_expired": Kind(
        "trunk",
        "The other end stopped refreshing the session (RFC 4028), or did not answer our refresh.",
        "The other end is gone, or its refreshes are lost on the way; see the routing entries.",
    ),
    # Sound.
    "no_audio_received": Kind(
        "trunk",
        "No sound came from the caller's side.",
        "Open UDP for media.ports in the firewall, and see that media.public_ip is the address callers reach.",
    ),
    "caller_behind_nat": Kind(
        "trunk",
        "No sound came, and the caller's SDP names a private address: NAT without symmetric RTP.",
        "Have the trunk or proxy put its public address into the SDP (rtpengine, nathelper), or send from it.",
    ),
    "media_address_private": Kind(
        "node",
        "No sound came, and our SDP names an address that the caller's side cannot reach.",
        "Set media.public_ip to this machine's public address and forward media.ports to it.",
    ),
    "audio_from_elsewhere": Kind(
        "trunk",
        "Sound came from another address than the one agreed on, and was refused.",
        "Have the trunk send from the address in its SDP, or steadily from one other.",
    ),
    "srtp_keys_wrong": Kind(
        "trunk",
        "Sound came, and none of it could be decrypted.",
        "The peer encrypts with another key than the one in its SDP, or not at all.",
    ),
    "audio_unusable": Kind(
        "trunk",
        "Packets came, and none was RTP of an agreed payload type.",
        "See the payload types of offer and answer.",
    ),
    "audio_stopped": Kind(
        "trunk",
        "The caller's sound stopped in mid call, without BYE.",
        "The other end or the way from it broke off; a firewall may close UDP flows that are quiet.",
    ),
    "audio_not_arriving": Kind(
        "trunk",
        "The caller's side says that nearly nothing of our sound arrives.",
        "Let UDP out of media.ports to where the sound goes; see `media.remote`.",
    ),
    "loss_from_caller": Kind(
        "trunk",
        "Much of the caller's sound was lost on the way.",
        "Look at the network between trunk and node.",
    ),
    "loss_to_caller": Kind(
        "trunk",
        "Much of the agent's sound was lost on the way.",
        "Look at the network between node and trunk.",
    ),
    "jitter": Kind(
        "trunk",
        "The caller's sound came very unevenly.",
        "Look at the network between trunk and node, and at Wi-Fi.",
    ),
    "node_overloaded": Kind(
        "node",
        "This node was too busy to send sound in time.",
        "Fewer calls at once on this machine, or a faster one.",
    ),
    # Transfers.
    "refer_refused": Kind(
        "trunk",
        "The trunk refused the transfer (REFER).",
        "Enable call transfer (and PSTN transfer) on the trunk; check the target's form against the trunk's how-to.",
    ),
    "refer_target_failed": Kind(
        "nobody", "The trunk tried the transfer, and its target did not take the call."
    ),
    "refer_unreachable": Kind(
        "trunk",
        "The REFER could not be sent.",
        "See which hop was tried: the connection of the INVITE was gone, and the route leads nowhere.",
    ),
    "refer_no_answer": Kind(
        "trunk", "The trunk did not answer the REFER.", "See where it was sent on the timeline."
    ),
    "refer_no_notify": Kind(
        "trunk",
        "The trunk took the REFER and never said what became of it.",
        "Ask the trunk for NOTIFY of REFER, or count its BYE as success.",
    ),
    "refer_unknown": Kind("unknown", "The trunk ended its news of the transfer without saying how it went."),
    "refer_not_supported": Kind(
        "trunk", "The trunk's INVITE does not allow REFER.", "Enable call transfer on the trunk."
    ),
    "refer_bad_request": Kind(
        "app",
        "The request for a transfer was refused here.",
        "Correct what the error names, or refer_targets.",
    ),
    "refer_interrupted": Kind(
        "nobody", "The transfer was not sent: the agent was interrupted, or the call ended."
    ),
    # The node itself.
    "media_timeout": Kind(
        "trunk", "No RTP came for media.timeout_s.", "See the media entries of the timeline."
    ),
    "node_shut_down": Kind("node", "The node was shut down during the call.", "Raise shutdown_grace_s."),
    "node_crashed": Kind(
        "node",
        "The node ended without warning during the call.",
        "See the machine's log: memory, power, a kill.",
    ),
    "internal_error": Kind(
        "node", "A fault of Offhook's.", "Please report it, with `offhook explain --bundle`."
    ),
    "unknown": Kind(
        "unknown", "The story does not say.", "Read the ladder; its last entries are closest to the end."
    ),
}
