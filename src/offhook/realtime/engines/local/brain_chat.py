"""A brain that asks a language model, at any OpenAI-compatible Chat Completions endpoint."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping
from contextlib import AsyncExitStack, aclosing
from typing import Any, TypeVar

import httpx2
import orjson

from offhook import ids

from ...engine import EngineUnavailable, Respond
from .brain import Apology, BrainPart, Ended
from .chat_completions import Answer, ChatError, SseReader, create_request
from .config import BrainConfig

__all__ = ["ChatBrain"]

log = logging.getLogger("offhook.realtime")

_T = TypeVar("_T")

_ENDPOINT = "the language model's endpoint"


class ChatBrain:
    """
    Follows the session's instructions and calls its tools, as well as its model can.

    Whatever goes wrong - no connection, an error status, silence, a stream that is cut or is garbage - the caller
    hears the configured apology, and the response ends as `failed` with a code that names the cause.
    """

    def __init__(self, config: BrainConfig) -> None:
        self._config = config
        self._url = config.base_url.rstrip("/") + "/chat/completions"
        self._client: httpx2.AsyncClient | None = None

    async def start(self) -> None:
        config = self._config
        if not config.base_url.startswith(("http://", "https://")):
            raise EngineUnavailable(
                "engine.brain.base_url: give the endpoint's URL up to its version, such as http://127.0.0.1:11434/v1"
            )
        if not config.model:
            raise EngineUnavailable("engine.brain.model: name the language model to use at base_url")
        headers = {"authorization": f"Bearer {config.api_key}"} if config.api_key else {}
        self._client = httpx2.AsyncClient(
            headers={**headers, "accept": "text/event-stream"},
            timeout=httpx2.Timeout(None, connect=config.connect_timeout_s),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=50, keepalive_expiry=60.0),
        )

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    def describe(self) -> Mapping[str, object]:
        return {
            "brain": f"chat_completions: {self._config.model}",
            "follows_instructions": True,
        }

    async def respond(self, command: Respond) -> AsyncGenerator[BrainPart, None]:
        failed: ChatError
        try:
            async with aclosing(self._answer(command)) as parts:
                async for part in parts:
                    yield part
            return
        except ChatError as exc:
            failed = exc
        except httpx2.HTTPError as exc:
            failed = ChatError(
                "brain_unreachable", f"{_ENDPOINT} cannot be reached: {type(exc).__name__}", str(exc)
            )
        log.warning(
            "the language model failed: %s",
            failed,
            extra={
                "event": "brain.failed",
                "response_id": command.response_id,
                "code": failed.code,
                "url": self._url,
                "detail": failed.detail,
            },
        )
        yield Apology(self._config.apology)
        yield Ended("failed", error_code=failed.code, error_message=str(failed))

    async def _answer(self, command: Respond) -> AsyncGenerator[BrainPart, None]:
        body = orjson.dumps(create_request(command, self._config.model))
        patience = _Patience(self._config.total_timeout_s)
        answer = Answer(lambda: ids.opaque_id("call"))
        async with AsyncExitStack() as stack:
            response = await self._post(body, patience)
            stack.push_async_callback(response.aclose)
            wait = self._retry_after(response)
            if wait is not None:
                await response.aclose()
                await asyncio.sleep(wait)
                response = await self._post(body, patience)
                stack.push_async_callback(response.aclose)
            if response.status_code != 200:
                raise ChatError(
                    "brain_rate_limited" if response.status_code == 429 else "brain_error",
                    f"{_ENDPOINT} answered {response.status_code}",
                    await self._excerpt(response, patience),
                )
            async with aclosing(self._parts(response, answer, patience)) as parts:
                async for part in parts:
                    yield part
        # After a tool's result a model may have nothing to add; after a caller's words it owes an answer.
        last = command.items[-1].get("type") if command.items else None
        for part in answer.finish(expect_words=last != "function_call_output"):
            yield part

    async def _post(self, body: bytes, patience: _Patience) -> httpx2.Response:
        assert self._client is not None
        request = self._client.build_request(
            "POST", self._url, content=body, headers={"content-type": "application/json"}
        )
        return await patience.wait(
            self._client.send(request, stream=True), self._config.first_token_timeout_s
        )

    async def _parts(
        self, response: httpx2.Response, answer: Answer, patience: _Patience
    ) -> AsyncGenerator[BrainPart, None]:
        chunks = response.aiter_bytes()
        limit = self._config.first_token_timeout_s
        if response.headers.get("content-type", "").startswith("application/json"):
            whole = await self._whole(chunks, patience)
            for part in answer.receive_object(whole):
                yield part
            return
        reader = SseReader()
        while not answer.done:
            data = await patience.wait(anext(chunks, None), limit)
            events = reader.finish() if data is None else reader.receive_data(data)
            for event in events:
                limit = self._config.idle_timeout_s
                for part in answer.receive_event(event):
                    yield part
            if data is None:
                return

    async def _whole(self, chunks: AsyncIterator[bytes], patience: _Patience) -> Any:
        """Return what a server sends that does not stream."""
        data = bytearray()
        while (
            more := await patience.wait(anext(chunks, None), self._config.first_token_timeout_s)
        ) is not None:
            data += more
            if len(data) > 1 << 20:
                raise ChatError("brain_garbage", f"{_ENDPOINT} sent more than 1 MiB")
        try:
            return orjson.loads(data)
        except orjson.JSONDecodeError:
            raise ChatError("brain_garbage", f"{_ENDPOINT} answered something that is no JSON") from None

    async def _excerpt(self, response: httpx2.Response, patience: _Patience) -> str:
        try:
            data = await patience.wait(anext(response.aiter_bytes(), b""), 1.0)
        except (ChatError, httpx2.HTTPError):
            return "(no body)"
        return data[:300].decode("utf-8", "replace").strip() or "(no body)"

    def _retry_after(self, response: httpx2.Response) -> float | None:
        """Return a 429's wait if it is short enough to keep a caller waiting."""
        if response.status_code != 429:
            return None
        try:
            wait = float(response.headers.get("retry-after", ""))
        except ValueError:
            return None
        return wait if 0 <= wait <= self._config.retry_after_limit_s else None


class _Patience:
    """How long one answer may still take, and each step of it."""

    def __init__(self, total_s: float) -> None:
        self._total_s = total_s
        self._deadline = asyncio.get_running_loop().time() + total_s

    async def wait(self, work: Awaitable[_T], seconds: float) -> _T:
        """Return the work's result. Raises `ChatError` when it, or the whole answer, takes too long."""
        deadline = min(asyncio.get_running_loop().time() + seconds, self._deadline)
        try:
            async with asyncio.timeout_at(deadline):
                return await work
        except TimeoutError:
            over = (
                f"took more than {self._total_s:g} s"
                if deadline == self._deadline
                else f"was silent for {seconds:g} s"
            )
            raise ChatError("brain_timeout", f"{_ENDPOINT} {over}") from None
