"""
The service with turns that the pipeline ends, a context of its own, and a conversation that is begun anew.

All this is what a pipeline with a local VAD, a flow or a summary asks of it.
"""

from __future__ import annotations

import asyncio
from typing import Any

from app import TOOL, Ear, make_service, make_worker, tell_faults, tell_what_is_parsed
from console import Came, running, tell, tell_versions
from pipecat.adapters.llm.schemas.tools_schema import ToolsSchema
from pipecat.frames.frames import (
    InterruptionFrame,
    LLMMessagesAppendFrame,
    LLMRunFrame,
    LLMUpdateSettingsFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.services.openai.realtime import events
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService
from pipecat.workers.runner import WorkerRunner

LOUD = b"\x10\x27\xf0\xd8" * 12000
HISTORY: list[Any] = [
    {"role": "user", "content": "I am Zoë."},
    {"role": "assistant", "content": "Hello Zoë."},
    {"role": "user", "content": "Here I am again."},
]


def make_properties() -> events.SessionProperties:
    pcm = events.PCMAudioFormat()
    listening = events.AudioInput(
        format=pcm,
        transcription=events.InputAudioTranscription(),
        noise_reduction=events.InputAudioNoiseReduction(type="near_field"),
        turn_detection=False,
    )
    speaking = events.AudioOutput(format=pcm, voice="marin", speed=1.0)
    return events.SessionProperties(
        audio=events.AudioConfiguration(input=listening, output=speaking),
        output_modalities=["audio"],
        tool_choice="auto",
        max_output_tokens=200,
        tracing="auto",
        include=["item.input_audio_transcription.logprobs"],
        reasoning=events.Reasoning(effort="low"),
    )


def count_what_is_parsed(came: Came) -> None:
    parse = events.parse_server_event

    def counted(frame: str) -> Any:
        event = parse(frame)
        came.add(event.type if event else "")
        return event

    events.parse_server_event = counted


async def take_a_turn(ear: Ear, service: OpenAIRealtimeLLMService) -> None:
    await service.queue_frame(UserStartedSpeakingFrame())
    ear.microphone.speak(LOUD)
    await ear.microphone.silent()
    await service.queue_frame(UserStoppedSpeakingFrame())


async def talk(ear: Ear, service: OpenAIRealtimeLLMService, came: Came) -> None:
    ids: list[str] = []

    @service.event_handler("on_conversation_item_created")
    async def keep_id(service: Any, item_id: str, item: Any) -> None:
        ids.append(item_id)

    await came.until("response.done", 1)
    await take_a_turn(ear, service)
    # The call of a tool, and its outcome.
    await came.until("response.created", 3)
    await came.one_more("response.output_audio.delta")
    await service.queue_frame(InterruptionFrame())
    await came.until("conversation.item.truncated", 1)
    await came.until("response.done", 3)
    item = await service.retrieve_conversation_item(ids[-1])
    tell("retrieved", same=item.id == ids[-1], role=item.role)
    added = len(ids)
    await service.queue_frame(LLMMessagesAppendFrame([{"role": "developer", "content": "It is Sunday."}]))
    await came.until("conversation.item.done", added + 1)
    delta = OpenAIRealtimeLLMService.Settings(system_instruction="Be brief.")
    await service.queue_frame(LLMUpdateSettingsFrame(delta=delta))
    await came.until("session.updated", 3)
    await service.reset_conversation()
    await came.until("session.updated", 4)
    # A tool that begins the conversation anew leads to this by its result. The context goes up first.
    await service._create_response()
    await came.until("response.done", 4)


async def main() -> None:
    tell_faults("is not emitting turn frames")
    tell_versions("pipecat-ai", "openai", "websockets")
    tell_what_is_parsed()
    ear, service, came = Ear(), make_service(make_properties()), Came()
    count_what_is_parsed(came)
    worker = make_worker(ear, service, LLMContext(HISTORY, ToolsSchema(standard_tools=[TOOL])))
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await worker.queue_frames([LLMRunFrame()])
    async with running(runner.run()):
        await talk(ear, service, came)
        await worker.cancel()
    tell("hung up")


asyncio.run(main())
