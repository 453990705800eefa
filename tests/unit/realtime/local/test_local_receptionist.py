"""The built-in receptionist: the stories that docs/reference/rules-brain.md promises."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offhook.realtime.engine import Respond
from offhook.realtime.engines.local import rulebook
from offhook.realtime.engines.local.brain import Ended
from offhook.realtime.engines.local.brain_rules import RulesBrain, reply
from offhook.realtime.engines.local.config import BrainConfig

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
        (["Hello?", "Hello?", "Hello?", "Hello?"], "VOICEMAIL", "unknown", None),
        (["Hi, my name is john and I'm calling about the invoice."], "ALLOW", "john", "the invoice"),
        (["S-M-I-T-H.", "I have a delivery for number 12."], "ALLOW", "Smith", None),
        (["SMITH.", "I have a delivery for number 12."], "ALLOW", "Smith", None),
        (["This is Bob.", "No, my name is Rob.", "It's about the delivery."], "ALLOW", "Rob", "the delivery"),
        (
            ["Hold on a second.", "This is Ben.", "Just a moment.", "It's about the project."],
            "ALLOW",
            "Ben",
            None,
        ),
        (["Mm-hmm.", "Uh...", "Um, yeah.", "Okay.", "Mm."], "VOICEMAIL", "unknown", None),
        (["What time do you open?", "This is Ann."], "VOICEMAIL", "Ann", "What time do you open"),
        (
            ["How are you today?", "My name is Chad, with Bright Future.", "We help homeowners save money."],
            "REJECT",
            "Chad",
            None,
        ),
        (["My washing machine is broken and I need a repair, this is Al."], "ALLOW", "Al", None),
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


@pytest.mark.parametrize(("tokens", "status"), [("inf", "completed"), (500, "completed"), (3, "incomplete")])
async def test_it_stops_at_max_output_tokens(tokens, status):
    """Row G15: a token is four letters here, and words stay whole."""
    brain = RulesBrain(BrainConfig())
    await brain.start()
    command = Respond("resp_1", 1, [], "", [], "auto", True, "ash", 1.0, tokens)
    said, end = [part async for part in brain.respond(command)]
    whole = " ".join(reply(BOOK, []).say)
    assert end == Ended(status, "max_output_tokens" if status == "incomplete" else None)
    assert whole.split()[: len(said.text.split())] == said.text.split()
    assert (said.text == whole) is (status == "completed")


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


# What callers do.


@pytest.mark.parametrize(
    ("turns", "says"),
    [
        (["This is Bob, about a delivery.", "Hello?"], "One moment"),
        (["This is Ann, I just wanted to chat.", "Tell him that I will be late."], "pass that on"),
        (["Congratulations, you have won a prize!", "But it is free!"], "nothing more that I can do"),
        (["Oh, sorry, wrong number. Bye."], "Goodbye"),
        (["Sorry, what?"], "Who is calling"),
        (["I can't hear you."], "Who is calling"),
        (["Who is this?"], "automated"),
        (["Let me talk to a human."], "automated"),
    ],
)
def test_a_screened_caller_is_answered_to_the_point(turns, says):
    talk = Conversation(screening())
    talk.ask()
    for turn in turns:
        answer = talk.say(turn)
        if answer.calls and turn is not turns[-1]:
            talk.result('{"ok": true}')
    assert says in said(answer)


@pytest.mark.parametrize(
    ("turns", "says"),
    [
        (["What time do you open tomorrow?"], "cannot help with that"),
        (["This is Ed. Please call me at 555-0134 about the roof."], "5 5 5, 0 1 3, 4"),
        (["Ed.", "Call me back.", "Five five five, oh one three four."], "Five five five"),
        (["Ed.", "Call me back.", "He has my number."], "Call me back"),
        (["Ed.", "Call me back.", "555-0134", "No, it is 555-0135."], "0 1 3, 5"),
        (["Ed.", "Call me back.", "555-0134", "Hm, the thing."], "say yes or no"),
        (["Ed.", "Call me back.", "555-0134", "Yes.", "Tell him that it is urgent."], "added that"),
        (["Ed.", "No, it's Ted.", "Call me back.", "555-0134", "Yes."], "Ted"),
        (["Ed.", "Okay, bye."], "Goodbye"),
        (["Ed.", "Call me back.", "Bye."], "pass that on"),
        (["", "", "", ""], "call again later"),
    ],
)
def test_a_message_is_taken_from_every_kind_of_caller(turns, says):
    talk = Conversation()
    talk.ask()
    for turn in turns:
        answer = talk.say(turn)
    assert says in said(answer)


LINES = [
    "", ".", "Hello?", "Mm-hmm.", "Uh...", "Thank you.", "Yes.", "No.", "you", "Bye.", "Sorry?", "What did you say?",
    "Hold on.", "Are you a robot?", "I want to talk to a human.", "This is Bob.", "My name is Ann.", "S-M-I-T-H.",
    "It's Rob, not Bob.", "Where are you?", "Gracias.", "555-0134.", "It's about the package.", "Please call me back.",
    "I'd rather not say.", "I can't hear you.", "We have a special offer for you.", "It's urgent.", "Nothing.",
]  # fmt: skip


@pytest.mark.parametrize("tools", [(), (screening(),)], ids=["message", "screening"])
@given(turns=st.lists(st.sampled_from(LINES), min_size=1, max_size=14))
@settings(max_examples=150, deadline=None)
def test_it_is_never_at_a_loss_for_words(tools, turns):
    talk = Conversation(*tools)
    talk.ask()
    for turn in turns:
        answer = talk.say(turn)
        assert answer.say, turn
        assert "None" not in said(answer)
        if answer.calls:
            talk.result('{"ok": true}')


@pytest.mark.parametrize("tools", [(), (screening(),)], ids=["message", "screening"])
@pytest.mark.parametrize("line", LINES)
def test_whoever_repeats_himself_is_not_asked_the_same_for_ever(tools, line):
    talk = Conversation(*tools)
    talk.ask()
    answers = [said(talk.say(line)) for _ in range(20)]
    assert all(answers)
    questions = [answer for answer in answers if answer.endswith("?")]
    assert max((questions.count(question) for question in questions), default=0) <= 5
    assert len(set(answers[-3:])) == 1, "it has come to an end"
    assert not answers[-1].endswith("?")
