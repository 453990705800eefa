"""
A voice bot on Pipecat, unmodified: a pipeline with `OpenAIRealtimeLLMService`, whose `base_url` is a node's.

A microphone and a loudspeaker of its own are the pipeline's ends, each a transport in small.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from loguru import logger
from pipecat.adapters.llm.schemas.function_schema import FunctionSchema
from pipecat.adapters.llm.schemas.tools_schema import ToolsSchema
from pipecat.frames.frames import (
    BotStoppedSpeakingFrame,
    Frame,
    InputAudioRawFrame,
    LLMRunFrame,
    OutputAudioRawFrame,
    StartFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.llm_service import FunctionCallParams
from pipecat.services.openai.realtime import events
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService
from pipecat.transports.base_input import BaseInputTransport
from pipecat.transports.base_output import BaseOutputTransport
from pipecat.transports.base_transport import TransportParams
from pipecat.workers.runner import WorkerRunner

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from console import Microphone, running, tell, tell_versions

RATE = 24000
URL = os.environ["OPENAI_BASE_URL"].replace("http", "ws", 1) + "/realtime"


class Ear(BaseInputTransport):
    """What is said to the bot."""

    def __init__(self) -> None:
        super().__init__(TransportParams(audio_in_enabled=True))
        self.microphone = Microphone(self._hear, RATE)

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        await self.set_transport_ready(frame)
        self._listening = self.create_task(self.microphone.run())

    async def cleanup(self) -> None:
        await self.cancel_task(self._listening)
        await super().cleanup()

    async def _hear(self, pcm: bytes) -> None:
        await self.push_audio_frame(InputAudioRawFrame(audio=pcm, sample_rate=RATE, num_channels=1))


class Loudspeaker(BaseOutputTransport):
    """Plays in real time into nowhere."""

    def __init__(self) -> None:
        super().__init__(TransportParams(audio_out_enabled=True))
        self._free_at = 0.0

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        await self.set_transport_ready(frame)

    async def write_audio_frame(self, frame: OutputAudioRawFrame) -> bool:
        tell("audio", bytes=len(frame.audio))
        now = asyncio.get_running_loop().time()
        self._free_at = max(self._free_at, now) + len(frame.audio) / 2 / RATE
        await asyncio.sleep(self._free_at - now)
        return True


class TellPlayed(FrameProcessor):
    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, BotStoppedSpeakingFrame):
            tell("played")
        await self.push_frame(frame, direction)


def tell_what_is_parsed() -> None:
    """The service has no event of its own for what it gets."""
    parse = events.parse_server_event

    def told(frame: str) -> Any:
        tell("event", event=json.loads(frame))
        return parse(frame)

    events.parse_server_event = told


async def look_up(params: FunctionCallParams) -> None:
    tell("tool ran", **params.arguments)
    await params.result_callback("nine to five")


TOOL = FunctionSchema(
    name="look_up_opening_hours",
    description="Say when we are open.",
    properties={"day": {"type": "string"}},
    required=["day"],
)


def make_service(properties: events.SessionProperties) -> OpenAIRealtimeLLMService:
    service = OpenAIRealtimeLLMService(
        api_key=os.environ["OPENAI_API_KEY"],
        base_url=URL,
        settings=OpenAIRealtimeLLMService.Settings(
            system_instruction="Answer questions about hours.", session_properties=properties
        ),
    )
    service.register_function(TOOL.name, look_up)
    return service


def make_worker(ear: Ear, service: OpenAIRealtimeLLMService, context: LLMContext) -> PipelineWorker:
    user, assistant = LLMContextAggregatorPair(context)
    worker = PipelineWorker(
        Pipeline([ear, user, service, Loudspeaker(), TellPlayed(), assistant]),
        params=PipelineParams(audio_in_sample_rate=RATE, audio_out_sample_rate=RATE),
    )

    @worker.event_handler("on_pipeline_error")
    async def tell_error(worker: Any, frame: Any) -> None:
        tell("fault", where="the pipeline", message=str(frame))

    return worker


def tell_faults(*expected: str) -> None:
    """Tell what Pipecat warns of, but for what is expected."""
    logger.remove()
    logger.add(
        lambda message: tell("fault", where="pipecat", message=str(message)),
        level="WARNING",
        filter=lambda record: not any(text in record["message"] for text in expected),
    )


async def main() -> None:
    tell_faults()
    tell_versions("pipecat-ai", "openai", "websockets")
    tell_what_is_parsed()
    listening = events.AudioInput(
        transcription=events.InputAudioTranscription(),
        turn_detection=events.TurnDetection(silence_duration_ms=300),
    )
    properties = events.SessionProperties(audio=events.AudioConfiguration(input=listening))
    ear, context = Ear(), LLMContext([], ToolsSchema(standard_tools=[TOOL]))
    worker = make_worker(ear, make_service(properties), context)
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await worker.queue_frames([LLMRunFrame()])
    async with running(runner.run()):
        await ear.microphone.speaks_until_hung_up()
        await worker.cancel()
    tell("hung up", messages=context.get_messages())


if __name__ == "__main__":
    asyncio.run(main())
