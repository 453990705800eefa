"""The built-in receptionist: the stories that docs/reference/rules-brain.md promises."""

import re

import pytest

from offhook.realtime.engines.local import rulebook
from offhook.realtime.engines.local.brain_rules import reply

BOOK = rulebook.load(None)


def screening(
    decision=("ALLOW", "REJECT", "VOICEMAIL"), *, extra=("caller_name", "reason"), required=("decision",)
):
    properties = {"decision": {"type": "string", "enum": list(decision)}}
    properties |= {name: {"type": "string"} for name in extra}
    return {
        "type": "function",
        "name": "make_screening_decision",
        "parameters": {"type": "object", "properties": properties, "required": list(required)},
    }


def user(text):
    return {"type": "message", "role": "user", "content": [{"type": "input_audio", "transcript": text}]}


def assistant(text="..."):
    return {"type": "message", "role": "assistant", "content": [{"type": "output_audio", "transcript": text}]}


class Conversation:
    """Plays a caller's part and keeps the items as a session would."""

    def __init__(self, *tools, **settings):
        self.tools = tools
        self.settings = settings
        self.items = []

    def ask(self):
        answer = reply(BOOK, self.items, tools=self.tools, **self.settings)
        if answer.say:
            self.items.append(assistant(" ".join(answer.say)))
        for number, (name, _) in enumerate(answer.calls):
            call_id = f"call_{len(self.items)}_{number}"
            self.items.append({"type": "function_call", "name": name, "call_id": call_id, "arguments": "{}"})
        return answer

    def say(self, text):
        self.items.append(user(text))
        return self.ask()

    def result(self, output):
        call = next(item for item in reversed(self.items) if item["type"] == "function_call")
        self.items.append({"type": "function_call_output", "call_id": call["call_id"], "output": output})
        return self.ask()


def said(answer):
    return " ".join(answer.say)


# Screening


def test_it_greets_and_asks_who_and_why():
    answer = Conversation(screening()).ask()
    assert re.search("who is calling", said(answer), re.IGNORECASE)
    assert "about" in said(answer)
    assert answer.calls == ()


@pytest.mark.parametrize(
    ("turns", "decision", "name", "reason"),
    [
        (
            ["This is Bob Smith, I'm calling about an urgent delivery."],
            "ALLOW",
            "Bob Smith",
            "an urgent delivery",
        ),
        (
            ["My name is Alice.", "It's about tomorrow's appointment."],
            "ALLOW",
            "Alice",
            "tomorrow's appointment",
        ),
        (["Robert Jones.", "I need to talk about the invoice."], "ALLOW", "Robert Jones", None),
        (
            ["Hi, Sarah from the dentist's office.", "To move the appointment."],
            "ALLOW",
            "Sarah",
            "To move the appointment",
        ),
        (
            ["I'm calling about your car's extended warranty."],
            "REJECT",
            "unknown",
            "your car's extended warranty",
        ),
        (["Congratulations, you have won a prize!"], "REJECT", "unknown", None),
        (["Hello, this is Mike calling about solar panels."], "REJECT", "Mike", "solar panels"),
        (["This is Anna.", "I just wanted to chat."], "VOICEMAIL", "Anna", None),
        (
            ["I am calling about the book club.", "Jim Beam speaking."],
            "VOICEMAIL",
            "Jim Beam",
            "the book club",
        ),
        (["Hello?", "Hello?", "Hello?"], "VOICEMAIL", "unknown", None),
        (["I want to speak to him about an emergency.", "That is private."], "ALLOW", "unknown", None),
    ],
)
def test_it_decides_by_what_the_caller_said(turns, decision, name, reason):
    talk = Conversation(screening())
    talk.ask()
    for turn in turns[:-1]:
        answer = talk.say(turn)
        assert answer.calls == (), turn
        assert answer.say
    answer = talk.say(turns[-1])
    ((tool, arguments),) = answer.calls
    assert tool == "make_screening_decision"
    assert arguments["decision"] == decision
    assert arguments["caller_name"] == name
    assert arguments["reason"]
    if reason:
        assert arguments["reason"] == reason
    assert answer.say, "the caller hears something with the decision"


@pytest.mark.parametrize(
    ("enum", "expected"),
    [
        (("ALLOW", "REJECT", "VOICEMAIL"), "ALLOW"),
        (("allow", "reject", "voicemail"), "allow"),
        (("put-through", "block"), "put-through"),
        (("connect", "decline", "take_message"), "connect"),
    ],
)
def test_the_decision_is_spelt_as_the_tool_spells_it(enum, expected):
    talk = Conversation(screening(enum))
    answer = talk.say("This is Bob, I'm calling about a delivery.")
    assert answer.calls[0][1]["decision"] == expected


def test_only_parameters_that_the_tool_takes_are_given():
    talk = Conversation(screening(extra=()))
    answer = talk.say("This is Bob, I'm calling about a delivery.")
    assert answer.calls == (("make_screening_decision", {"decision": "ALLOW"}),)


def test_a_tool_that_requires_what_is_not_known_is_not_called():
    talk = Conversation(screening(extra=("reason", "company"), required=("decision", "company")))
    answer = talk.say("This is Bob, I'm calling about a delivery.")
    assert answer.calls == ()
    assert answer.say


def test_tool_choice_none_is_obeyed():
    talk = Conversation(screening(), tool_choice="none")
    assert talk.say("This is Bob, I'm calling about a delivery.").calls == ()


def test_the_decision_is_made_once():
    talk = Conversation(screening())
    talk.say("This is Bob, I'm calling about a delivery.")
    assert talk.say("Hello? Are you there? It is about the delivery.").calls == ()
    assert talk.result('{"ok": true}').calls == ()


def test_a_failed_decision_is_told_to_the_caller():
    talk = Conversation(screening())
    talk.say("This is Bob, I'm calling about a delivery.")
    assert "did not work" in said(talk.result('{"error": "busy"}'))


def test_a_good_decision_needs_no_more_words():
    talk = Conversation(screening())
    talk.say("This is Bob, I'm calling about a delivery.")
    assert talk.result('{"ok": true}').say == ()


def test_unheard_words_are_asked_for_again_and_then_it_is_voicemail():
    talk = Conversation(screening())
    talk.ask()
    assert "did not hear" in said(talk.say(""))
    assert "did not hear" in said(talk.say(""))
    assert talk.say("").calls[0][1]["decision"] == "VOICEMAIL"


# Taking a message


def test_it_takes_a_message():
    talk = Conversation()
    assert "name" in said(talk.ask())
    assert "Carol Danvers" in said(talk.say("It's Carol Danvers."))
    assert "number" in said(talk.say("Please tell him the keys are at the front desk."))
    check = said(talk.say("It's 555-0134."))
    assert "5 5 5, 0 1 3, 4" in check
    assert "the keys are at the front desk" in check
    assert "pass that on" in said(talk.say("Yes, that's right."))
    assert "Goodbye" in said(talk.say("No, that's all. Bye."))


def test_a_wrong_message_is_taken_again():
    talk = Conversation()
    talk.ask()
    for turn in ("Carol.", "Call me back.", "555 0134"):
        talk.say(turn)
    assert "message again" in said(talk.say("No, that is wrong."))
    talk.say("Call me back tomorrow.")
    assert "Call me back tomorrow" in said(talk.say("555 0134"))


def test_a_message_goes_to_a_tool_when_there_is_one():
    tool = {
        "type": "function",
        "name": "take_message",
        "parameters": {"properties": {"name": {"type": "string"}, "message": {"type": "string"}}},
    }
    talk = Conversation(tool)
    talk.ask()
    for turn in ("Carol.", "Call me back.", "555 0134"):
        talk.say(turn)
    assert talk.say("Yes.").calls == (("take_message", {"name": "Carol", "message": "Call me back"}),)


def test_what_it_is_is_said_when_asked():
    talk = Conversation()
    talk.ask()
    assert "automated" in said(talk.say("Am I talking to a robot?"))


def test_it_repeats_itself_when_asked():
    talk = Conversation()
    talk.ask()
    question = said(talk.say("Carol."))
    assert said(talk.say("Sorry, could you repeat that?")) == question


@pytest.mark.parametrize(
    "instructions",
    [
        "Say to the user 'Thank you for calling, how can I help you?'",
        'Greet the caller with "Thank you for calling, how can I help you?"',
        "say exactly: \u201cThank you for calling, how can I help you?\u201d and wait",
    ],
)
def test_a_greeting_quoted_in_the_instructions_is_said(instructions):
    answer = Conversation(screening(), instructions=instructions).ask()
    assert answer.say == ("Thank you for calling, how can I help you?",)


def test_other_instructions_are_not_taken_for_a_greeting():
    instructions = 'You are a pirate. If you do not know, say "I do not know".'
    assert "know" not in said(Conversation(instructions=instructions).ask())


def test_the_same_conversation_has_the_same_answer():
    items = [assistant(), user("This is Bob."), assistant(), user("About a delivery.")]
    first = reply(BOOK, items, tools=[screening()])
    assert first == reply(BOOK, items, tools=[screening()])
    assert first.calls


def test_asked_to_go_on_it_asks_whether_the_caller_is_there():
    assert "still there" in said(reply(BOOK, [assistant("Hello.")]))


@pytest.mark.parametrize(
    "text", ["I want to know your hours.", "Hello.", "Yes, please.", "Okay.", "Not now."]
)
def test_words_that_are_no_name_are_not_taken_for_one(text):
    assert "caller_name" not in reply(BOOK, [assistant(), user(text)]).slots


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Hi, my name is Ludwig van Beethoven.", "Ludwig van Beethoven"),
        ("O'Brien here.", "O'Brien"),
        ("Hi, it\u2019s Mary-Jane calling.", "Mary-Jane"),
        ("Peter Parker, from the Bugle.", "Peter Parker"),
    ],
)
def test_names_are_found(text, name):
    slots = reply(BOOK, [assistant(), user(text)]).slots
    assert slots.get("caller_name") == name


def test_a_response_that_may_not_call_tools_remembers_that_one_was_called():
    talk = Conversation(screening())
    talk.say("This is Bob, I'm calling about a delivery.")
    talk.settings["tool_choice"] = "none"
    assert talk.result('{"ok": true}').say == ()
    assert said(talk.say("Hello?")) == "One moment, please."
