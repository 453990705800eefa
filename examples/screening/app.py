"""
Call screening: an agent asks who is calling and why, decides, and puts the caller through, or takes a message, or not.

Only the `openai` package; with OPENAI_BASE_URL set to an Offhook node it runs as it runs against the hosted service. A
message is kept as text; where calls can be recorded, which the hosted service has no API for, its sound is kept too.
"""

import asyncio
import json
import os
import threading
from pathlib import Path

from flask import Flask, Response, request
from openai import (
    APIStatusError,
    AsyncOpenAI,
    HttpxBinaryResponseContent,
    InvalidWebhookSignatureError,
    OpenAI,
)
from openai.resources.realtime.realtime import AsyncRealtimeConnection
from openai.types.realtime import RealtimeConversationItemFunctionCall, RealtimeResponse

TRANSFER_TO = os.environ.get("TRANSFER_TO", "tel:+15550100")
MESSAGES = Path(os.environ.get("MESSAGES", "messages"))

client = OpenAI()  # OPENAI_BASE_URL, OPENAI_API_KEY and OPENAI_WEBHOOK_SECRET come from the environment
app = Flask(__name__)

SESSION = {
    "type": "realtime",
    "model": "gpt-realtime-2.1",
    "instructions": (
        "You screen calls for a busy person. Greet the caller and find out who is calling and why. Then tell the "
        "caller in one sentence what happens next and call make_screening_decision: ALLOW people with a reason of "
        "their own, REJECT advertising, VOICEMAIL for the rest, who are asked to leave a message now."
    ),
    "audio": {"input": {"transcription": {"model": "whisper-1"}, "turn_detection": {"type": "server_vad"}}},
    "tools": [
        {
            "type": "function",
            "name": "make_screening_decision",
            "description": "Decide what becomes of the call, once the caller's name and reason are known.",
            "parameters": {
                "type": "object",
                "properties": {
                    "decision": {"type": "string", "enum": ["ALLOW", "REJECT", "VOICEMAIL"]},
                    "caller_name": {"type": "string"},
                    "reason": {"type": "string"},
                },
                "required": ["decision", "caller_name", "reason"],
            },
        }
    ],
}
FAREWELL = {
    "ALLOW": "Tell the caller, in one short sentence, that you put them through now.",
    "REJECT": "Tell the caller politely, in one short sentence, that nobody is interested, and say goodbye.",
    "VOICEMAIL": "Ask the caller, in one short sentence, to leave a message now.",
}
TAKE_MESSAGE = {
    "type": "realtime",
    "instructions": (
        "The caller leaves a message now. When they have, or say nothing, thank them in one short sentence, tell them "
        "that it will be passed on, and say goodbye. Ask nothing."
    ),
    # People pause while they think of what to say.
    "audio": {
        "input": {
            "turn_detection": {"type": "server_vad", "silence_duration_ms": 2000, "idle_timeout_ms": 10000}
        }
    },
}


def tell(what: str, **details: object) -> None:
    print(what, json.dumps(details, ensure_ascii=False), flush=True)


@app.post("/")
def webhook() -> Response:
    try:
        event = client.webhooks.unwrap(request.get_data(as_text=True), request.headers)
    except (InvalidWebhookSignatureError, ValueError) as error:
        tell("refused a webhook", error=str(error))
        return Response("invalid signature", status=400)
    if event.type == "realtime.call.incoming":
        call_id = event.data.call_id
        headers = {header.name.lower(): header.value for header in event.data.sip_headers}
        tell("webhook", type=event.type, call_id=call_id, caller=headers.get("from"))
        client.realtime.calls.accept(call_id, **SESSION)
        tell("accepted", call_id=call_id)
        threading.Thread(target=lambda: asyncio.run(talk(call_id)), daemon=True).start()
    elif event.type == "realtime.call.recording.saved":
        keep_sound(event.data.call_id)
    return Response(status=200)


async def talk(call_id: str) -> None:
    """Follow one call until it is over."""
    decision: str | None = None
    message: dict[str, str] | None = None  # once the caller was asked to leave one
    last: str | None = None  # the response with the last sentence: the caller hears it to its end
    # A client of its own: each call has a thread and an event loop, and connections belong to a loop.
    async with AsyncOpenAI() as client, client.realtime.connect(call_id=call_id) as connection:
        tell("attached", call_id=call_id)
        await connection.response.create(
            response={"instructions": "Greet the caller and ask who is calling and why."}
        )
        async for event in connection:
            match event.type:
                case "conversation.item.input_audio_transcription.completed":
                    tell("caller said", text=event.transcript)
                    if message is not None:
                        message["text"] = f"{message['text']} {event.transcript}".strip()
                case "response.output_audio_transcript.done":
                    tell("agent said", text=event.transcript)
                case "response.done" if call := decision_in(event.response):
                    decided = tell_decision(call.arguments)
                    decision = decided["decision"]
                    await connection.conversation.item.create(
                        item={
                            "type": "function_call_output",
                            "call_id": call.call_id,
                            "output": '{"ok": true}',
                        }
                    )
                    if any(item.type == "message" for item in event.response.output):
                        last = event.response.id
                    else:  # decided without a word: have the caller told
                        await connection.response.create(response={"instructions": FAREWELL[decision]})
                case "response.created" if decision and not last:
                    last = event.response.id
                case "output_audio_buffer.stopped" | "output_audio_buffer.cleared" if (
                    event.response_id == last
                ):
                    if decision == "VOICEMAIL" and message is None:  # what the agent says next is the goodbye
                        last, message = None, {**decided, "text": ""}
                        await take_message(client, connection, call_id, message)
                    else:
                        await finish(client, call_id, decision)
                case "error":
                    tell("error", code=event.error.code, message=event.error.message)
    if message is not None:
        keep_message(call_id, message)
    tell("call over", call_id=call_id)


def decision_in(response: RealtimeResponse) -> RealtimeConversationItemFunctionCall | None:
    calls = (item for item in response.output or [] if item.type == "function_call")
    return next((call for call in calls if call.name == "make_screening_decision"), None)


def tell_decision(arguments: str) -> dict[str, str]:
    decided = json.loads(arguments)
    tell("decision", **decided)
    return decided


async def take_message(
    client: AsyncOpenAI, connection: AsyncRealtimeConnection, call_id: str, message: dict[str, str]
) -> None:
    keep_message(call_id, message)  # from now on its sound is kept, too
    await connection.session.update(session=TAKE_MESSAGE)
    try:
        await client.post(f"/realtime/calls/{call_id}/recording", body={"action": "start"}, cast_to=object)
        tell("recording", call_id=call_id)
    except APIStatusError as error:  # then the message is what was understood of it
        tell("not recorded", call_id=call_id, message=error.message)


def keep_message(call_id: str, message: dict[str, str]) -> None:
    MESSAGES.mkdir(parents=True, exist_ok=True)
    (MESSAGES / f"{call_id}.json").write_text(json.dumps(message, ensure_ascii=False))
    if message["text"]:
        tell("message", call_id=call_id, **message)


def keep_sound(call_id: str) -> None:
    if not (MESSAGES / f"{call_id}.json").exists():
        return  # a recording of something else
    sound = client.get(f"/realtime/calls/{call_id}/recording.wav", cast_to=HttpxBinaryResponseContent)
    sound.write_to_file(MESSAGES / f"{call_id}.wav")
    tell("message recorded", call_id=call_id, file=str(MESSAGES / f"{call_id}.wav"))


async def finish(client: AsyncOpenAI, call_id: str, decision: str | None) -> None:
    try:
        if decision == "ALLOW":
            tell("transferring", call_id=call_id, target=TRANSFER_TO)
            await client.realtime.calls.refer(call_id, target_uri=TRANSFER_TO)
            tell("transferred", call_id=call_id, target=TRANSFER_TO)
        else:
            await client.realtime.calls.hangup(call_id)
            tell("hung up", call_id=call_id)
    except APIStatusError as error:  # the caller is still there, and so is the agent
        tell("error", code=error.code, message=error.message)


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=int(os.environ.get("PORT", "9099")), threaded=True)
