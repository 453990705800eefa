"""What the embedded voice can be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

__all__ = ["BrainConfig", "LocalConfig", "default_cache_dir"]

APOLOGY = "I am sorry, I cannot answer that right now. Please try again in a moment."


def default_cache_dir() -> Path:
    """Return `~/.cache/offhook`, for a node that names no directory of its own."""
    return Path.home() / ".cache" / "offhook"


@dataclass(frozen=True, slots=True, kw_only=True)
class BrainConfig:
    """Who decides what is said."""

    kind: Literal["rules", "chat_completions"] = "rules"
    "`rules`: a TOML file of patterns and sentences. `chat_completions`: a language model at an OpenAI-compatible URL."
    rules: Path | None = None
    "For `rules`: the file. None: the built-in receptionist."
    base_url: str = ""
    "For `chat_completions`: up to and including the version, such as `http://127.0.0.1:11434/v1`."
    model: str = ""
    "For `chat_completions`: the model's name at that URL."
    api_key: str = field(default="", repr=False)
    "For `chat_completions`: sent as a bearer token when not empty."
    connect_timeout_s: float = 3.0
    first_token_timeout_s: float = 10.0
    "From the request to the first piece of the answer. A caller waits in silence for this long at most."
    idle_timeout_s: float = 5.0
    "Between two pieces of the answer."
    total_timeout_s: float = 60.0
    "For one whole answer."
    retry_after_limit_s: float = 2.0
    "A 429 whose Retry-After is no longer than this is tried again, once."
    context_tokens: int | None = 32_768
    "For `chat_completions`: what the model takes in at a time, its answer included. None: no bound."
    apology: str = APOLOGY
    "What the caller hears when the language model fails."


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalConfig:
    """The embedded engine: voice activity, speech to text, a brain and text to speech."""

    brain: BrainConfig = field(default_factory=BrainConfig)
    workers: int | None = None
    "Speech-to-text processes, one thread each. None: one per core that this process may use."
    speakers: int = 1
    "Text-to-speech processes. A sentence takes about 25 ms, so one says some forty sentences a second."
    max_sessions: int | None = None
    "Sessions at once. None: 25 for each speech-to-text process, about what they can transcribe in time."
    strict_truncation: bool = False
    "Whether `conversation.item.truncate` past the end of an item's sound is an error."
    cache_dir: Path = field(default_factory=default_cache_dir)
    "Where the speech-to-text model, which comes in two packages, is put together (once, about 145 MB)."
    whisper_dir: Path | None = None
    "A CTranslate2 Whisper model of your own: a directory with model.bin, config.json and vocabulary.txt (or .json)."
    voice_model: Path | None = None
    "A hibari voice of your own (an ONNX file). None: the voice in the package."
    tick_ms: int = 20
    "How often the callers' audio is handed to voice activity detection, for all calls at once. Few calls: oftener."
