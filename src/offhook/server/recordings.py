"""`/v1/realtime/calls/{id}/recording`: what is recorded of a call, and the sound itself."""

from __future__ import annotations

from typing import Annotated, Any, Final

import orjson
from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from offhook.calls.errors import CallError, call_not_found
from offhook.calls.past import PastUnavailable
from offhook.calls.recording import Recording, RecordingAction

from .auth import authenticate
from .body import optional_object, read_json, refuse_unknown, type_name
from .call_directory import CallDirectory
from .document import SECURITY, json_body
from .errors import documented, unreadable
from .rest_entry import rest_entry
from .services import KeptRecordings, ServerServices
from .shapes import Deleted, RecordingShown, found

__all__ = ["RecordingRoutes", "create_sound_response"]

CallId = Annotated[str, Path(description="The call's id, as `realtime.call.incoming` gave it. Opaque.")]
ACTIONS: Final = [action.value for action in RecordingAction]
WAV: Final = "audio/wav"


class RecordingRoutes:
    """The routes, relative to a prefix such as `/v1`."""

    def __init__(self, services: ServerServices, directory: CallDirectory) -> None:
        self._projects = services.projects
        self._calls = services.calls
        self._clock = services.clock
        self._recordings = services.recordings
        self._directory = directory

    def router(self) -> APIRouter:
        router = APIRouter(prefix="/realtime", tags=["recordings"], redirect_slashes=False)
        for path, method, route, name, shape, errors, extra in (
            ("", "POST", self.act, "record_call", RecordingShown, (400, 401, 404, 408, 409, 413), _BODY),
            ("", "GET", self.get, "get_call_recording", RecordingShown, (401, 404), {}),
            (".wav", "GET", self.play, "play_call_recording", WAV, (401, 404, 409), {}),
            ("", "DELETE", self.delete, "delete_call_recording", Deleted, (401, 404, 409), {}),
        ):
            router.add_api_route(
                f"/calls/{{call_id:path}}/recording{path}",
                route,
                methods=[method],
                response_class=Response,
                responses={**found(shape, "Done."), **documented(*errors)},
                openapi_extra={**SECURITY, **extra},
                operation_id=name,
            )
        return router

    async def act(self, request: Request, call_id: CallId) -> Response:
        """
        Start, pause, resume or stop recording a call that is answered; return what the recording is then.

        What is so already is done. A call has one recording: one that was stopped is not started again. While it is
        paused both sides are silent in the file, and time goes on.
        """
        started_at = self._clock.monotonic()
        project = authenticate(request.headers, self._projects)
        call = self._calls.find(project.id, call_id)
        with rest_entry(call.timeline, self._clock, "recording", request, started_at=started_at) as entry:
            recording = await call.record(_action(optional_object(await read_json(request))))
            entry.answered(200)
        return self._describe(recording)

    async def get(self, request: Request, call_id: CallId) -> Response:
        """Return what is known of a call's recording: its state, its length, where its sound is."""
        return self._describe(await self._find(request, call_id))

    async def play(self, request: Request, call_id: CallId) -> Response:
        """
        Return the sound: a WAV file of two channels of G.711, the caller on the left, the agent on the right.

        Ranges are served. A recording that still goes on is a 409: stop it, or wait for the call's end.
        """
        recording = await self._find(request, call_id)
        assert self._recordings is not None
        return create_sound_response(self._recordings, recording)

    async def delete(self, request: Request, call_id: CallId) -> Response:
        """Delete the sound and all that is known of it, for good."""
        recording = await self._find(request, call_id)
        _refuse_unfinished(recording)
        assert self._recordings is not None
        try:
            await self._recordings.delete(recording)
        except PastUnavailable as error:
            raise unreadable(error) from None
        body = {"id": recording.id, "object": "realtime.call.recording.deleted", "deleted": True}
        return Response(orjson.dumps(body), media_type="application/json")

    async def _find(self, request: Request, call_id: str) -> Recording:
        project = authenticate(request.headers, self._projects)
        try:
            recording = await self._recordings.find(project.id, call_id) if self._recordings else None
        except PastUnavailable as error:
            raise unreadable(error) from None
        if recording is None:
            await self._directory.describe(project.id, call_id)  # a call that is unknown is answered as such
            raise _not_found()
        return recording

    def _describe(self, recording: Recording) -> Response:
        if self._recordings is None:
            raise call_not_found()
        body = recording.to_api(self._recordings.url(recording.call_id))
        return Response(orjson.dumps(body), media_type="application/json")


def create_sound_response(recordings: KeptRecordings, recording: Recording) -> Response:
    """Return the sound, or the range of it that is asked for. Raises `CallError` 404, and 409 while it goes on."""
    _refuse_unfinished(recording)
    path = recordings.file_of(recording)
    if not path.is_file():
        raise _not_found()
    return FileResponse(
        path,
        media_type=WAV,
        filename=f"{recording.call_id}.wav",
        content_disposition_type="inline",
        headers={"cache-control": "private, no-store", "x-content-type-options": "nosniff"},
    )


def _not_found() -> CallError:
    return CallError(
        404, "The call was not recorded, or its recording was deleted.", code="recording_not_found"
    )


def _refuse_unfinished(recording: Recording) -> None:
    if not recording.state.is_over:
        raise CallError(
            409,
            "The call is still being recorded. Stop the recording, or wait for the call's end.",
            code="recording_not_over",
        )


def _action(body: dict[str, Any]) -> RecordingAction:
    refuse_unknown(body, ("action",))
    if "action" not in body:
        raise CallError(
            400, "Missing required parameter: 'action'.", code="missing_required_parameter", param="action"
        )
    action = body["action"]
    if not isinstance(action, str):
        raise CallError(
            400,
            f"Invalid type for 'action': expected a string, but got {type_name(action)} instead.",
            code="invalid_type",
            param="action",
        )
    if action not in ACTIONS:
        raise CallError(
            400,
            f"Invalid value for 'action': use one of {', '.join(ACTIONS)}.",
            code="invalid_value",
            param="action",
        )
    return RecordingAction(action)


_BODY = json_body(
    "What to do.",
    {"required": ["action"], "properties": {"action": {"type": "string", "enum": ACTIONS}}},
)
