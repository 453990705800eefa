"""What the scripted engine of `tests/conftest.py` hears and says, in each call from the top."""

GREETING = "Hello there."
SHORT = "I see."
TOOL = "look_up_opening_hours"
TOOL_ARGUMENTS = '{"day":"monday"}'
SLOW = (
    "On Monday we open at nine in the morning and close at five.",
    "On Tuesday it is quite the same.",
)
"Two sentences; the second is made only while the first is being heard."
LONG = "All other days are much like these two, so let me go through them one by one, from first to last."

SCRIPT = {
    "greeting": GREETING,
    "turns": [
        {"hears": "Good morning.", "replies": [{"says": SHORT}]},
        {
            "hears": "When are you open?",
            "replies": [
                {"calls": [{"name": TOOL, "arguments": TOOL_ARGUMENTS}]},
                {"says": " ".join(SLOW), "sentence_ms": 3000},
            ],
        },
        {"hears": "And on other days?", "replies": [{"says": LONG}]},
        {"hears": "Thank you, goodbye.", "replies": [{"says": "Goodbye."}]},
    ],
}
