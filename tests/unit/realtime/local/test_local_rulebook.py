"""The rules format, as docs/reference/rules-brain.md describes it: what it does and what it refuses."""

import pytest

from offhook.realtime.engines.local import rulebook
from offhook.realtime.engines.local.brain_rules import reply
from offhook.realtime.engines.local.rulebook import RulesError


def book(text):
    return rulebook.parse("format = 1\n" + text, "my.toml")


def user(text):
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


def tool(name="book_table", required=(), **properties):
    return {
        "type": "function",
        "name": name,
        "parameters": {"type": "object", "properties": properties, "required": list(required)},
    }


def called(name="book_table", call_id="call_1"):
    return {"type": "function_call", "name": name, "call_id": call_id, "arguments": "{}"}


def result(output, call_id="call_1"):
    return {"type": "function_call_output", "call_id": call_id, "output": output}


def test_the_first_rule_that_applies_wins():
    rules = book(
        """
        [[rules]]
        pattern = "hours"
        say = "Nine to five."
        [[rules]]
        pattern = "hours|open"
        say = "Always."
        [[rules]]
        say = "Pardon?"
        """
    )
    for text, said in [
        ("What are your HOURS?", "Nine to five."),
        ("Are you open?", "Always."),
        ("Hm.", "Pardon?"),
    ]:
        assert reply(rules, [user(text)]).say == (said,)


def test_no_rule_says_nothing():
    assert reply(book('[[rules]]\npattern = "a"\nsay = "b"'), [user("x")]).say == ()


def test_states_lead_through_a_conversation():
    rules = book(
        """
        [[rules]]
        on = "start"
        say = "Coffee or tea?"
        next = "drink"
        [[rules]]
        state = "drink"
        pattern = "(?P<drink>coffee|tea)"
        say = "One {drink}. Sugar?"
        next = "sugar"
        [[rules]]
        state = "sugar"
        pattern = "yes"
        say = "{drink} with sugar."
        next = "start"
        """
    )
    spoken = {"type": "message", "role": "assistant", "content": []}
    assert reply(rules, []).say == ("Coffee or tea?",)
    assert reply(rules, [spoken, user("Tea, please")]).say == ("One Tea. Sugar?",)
    answer = reply(rules, [spoken, user("tea"), spoken, user("yes")])
    assert (answer.say, answer.state) == (("tea with sugar.",), "start")


def test_a_sentence_with_an_empty_slot_is_left_out():
    rules = book(
        """
        [[rules]]
        pattern = ["my name is (?P<name>\\\\w+)", "hello"]
        say = ["Hi.", "Nice to meet you, {name}."]
        """
    )
    assert reply(rules, [user("hello")]).say == ("Hi.",)
    assert reply(rules, [user("my name is Ann")]).say == ("Hi.", "Nice to meet you, Ann.")


def test_what_was_spelt_becomes_a_word():
    rules = book('[[rules]]\npattern = "(?P<name>[A-Z-]{3,})"\nsay = "Hello {name:word}."')
    assert reply(rules, [user("S-M-I-T-H")]).say == ("Hello Smith.",)


def test_digits_are_read_one_by_one():
    rules = book('[[rules]]\npattern = "(?P<number>[0-9-]+)"\nsay = "I have {number:digits}."')
    assert reply(rules, [user("call 555-0134")]).say == ("I have 5 5 5, 0 1 3, 4.",)


def test_going_on_fills_slots_for_later_rules():
    rules = book(
        """
        [slots]
        place = "the bar"
        [[rules]]
        pattern = "table"
        set = { place = "table" }
        go_on = true
        [[rules]]
        say = "At {place}."
        """
    )
    assert reply(rules, [user("a table")]).say == ("At table.",)
    assert reply(rules, [user("anything")]).say == ("At the bar.",)


def test_has_lacks_unless_and_times():
    rules = book(
        """
        [[rules]]
        pattern = "i am (?P<name>\\\\w+)"
        lacks = "name"
        go_on = true
        [[rules]]
        unless = "again"
        lacks = "name"
        times = 2
        say = "Who?"
        [[rules]]
        has = "name"
        say = "{name}."
        [[rules]]
        say = "Enough."
        """
    )
    turns = [user("x"), user("y"), user("z")]
    assert [reply(rules, turns[: n + 1]).say for n in range(3)] == [("Who?",), ("Who?",), ("Enough.",)]
    assert reply(rules, [user("again")]).say == ("Enough.",)
    assert reply(rules, [user("i am Bo"), user("i am Cy")]).say == ("Bo.",)


def test_words_are_used_in_patterns():
    rules = book('[words]\nyes = "yes|yeah"\n[[rules]]\npattern = "^{{yes}}$"\nsay = "Good."')
    assert reply(rules, [user("yeah")]).say == ("Good.",)
    assert reply(rules, [user("yeah no")]).say == ()


CALLING = """
[[rules]]
pattern = "table for (?P<people>\\\\w+)"
say = "One moment."
[rules.call]
tool = "book_table"
arguments = { people = "{people}", name = ["{caller}", "guest"], kind = ["terrace", "inside"], vip = "no" }
[[rules]]
on = "result"
pattern = "ok"
say = "Table {result.table} is yours for {result.hour}."
[[rules]]
on = "result"
say = "{tool} failed: {result}"
[[rules]]
say = "I cannot."
[slots]
caller = ""
"""


@pytest.mark.parametrize(
    ("offered", "arguments"),
    [
        (tool(people={"type": "string"}), {"people": "4"}),
        (tool(people={"type": "integer"}), {"people": 4}),
        (tool(people={"type": ["integer", "null"]}), {"people": 4}),
        (tool(people={"type": "number"}), {"people": 4.0}),
        (tool(name2={"type": "string"}), {}),
        ({**tool(), "parameters": {"properties": {"name": {"type": "string"}}}}, {"name": "guest"}),
        (tool(kind={"enum": ["INSIDE", "OUTSIDE"]}), {"kind": "INSIDE"}),
        (tool(vip={"type": "boolean"}), {"vip": False}),
        (tool(), {}),
    ],
    ids=str,
)
def test_arguments_are_what_the_tool_takes(offered, arguments):
    answer = reply(book(CALLING), [user("table for 4")], tools=[offered])
    assert answer.calls == (("book_table", arguments),)
    assert answer.say == ("One moment.",)


tool_int = tool(people={"type": "integer"}, required=["people"])


@pytest.mark.parametrize(
    ("text", "tools", "choice"),
    [
        ("table for 4", [], "auto"),
        ("table for 4", [tool("other")], "auto"),
        ("table for four", [tool_int], "auto"),
        ("table for 4", [tool_int], "none"),
        ("table for 4", [tool_int, tool("other")], {"type": "function", "name": "other"}),
        ("table for 4", [{"type": "mcp", "server_label": "x"}], "auto"),
    ],
)
def test_a_rule_whose_tool_cannot_be_called_does_not_apply(text, tools, choice):
    answer = reply(book(CALLING), [user(text)], tools=tools, tool_choice=choice)
    assert (answer.say, answer.calls) == (("I cannot.",), ())


def test_results_fill_slots():
    items = [user("table for 4"), called(), result('{"status": "ok", "table": 7, "hour": "eight"}')]
    assert reply(book(CALLING), items).say == ("Table 7 is yours for eight.",)
    items[-1] = result("no luck")
    assert reply(book(CALLING), items).say == ("book_table failed: no luck",)


def test_a_result_of_an_unknown_call_harms_nothing():
    assert reply(book(CALLING), [result("ok", "call_9")]).say == ()


def test_a_turn_without_words_is_unheard():
    rules = book('[[rules]]\non = "unheard"\nsay = "What?"')
    silent = {"type": "message", "role": "user", "content": [{"type": "input_audio", "transcript": None}]}
    assert reply(rules, [silent]).say == ("What?",)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "rules: give at least one"),
        ("rules = 3", "rules: give at least one"),
        ("rules = [3]", "rule 1: rules: must be a table"),
        ("[[rules]]\nsay = 3", "rule 1: say: must be a string or a list of strings"),
        ("[[rules]]\nsya = 'x'", "rule 1: sya: unknown key; known are call, go_on"),
        ("[[rules]]\nname = 'hi'\non = 'never'\nsay = 'x'", r"rule 1 \(hi\): on: must be one of start, said"),
        ("[[rules]]\npattern = '('\nsay = 'x'", "rule 1: pattern: '\\(' is no regular expression"),
        ("[[rules]]\npattern = '{{yes}}'\nsay = 'x'", r"rule 1: pattern: there is no 'yes' in \[words\]"),
        ("[[rules]]\nsay = 'Hi {name}'", "rule 1 .*nothing fills the slot 'name'"),
        ("[[rules]]\nhas = 'name'\nsay = 'Hi'", "nothing fills the slot 'name'"),
        ("[[rules]]\nstate = 'x'\nsay = 'Hi'", "state: no rule's next leads to 'x'"),
        ("[[rules]]\npattern = 'x'", "rule 1: say: the rule does nothing"),
        ("[[rules]]\nsay = 'x'\ngo_on = true", "rule 1: go_on"),
        ("[[rules]]\nsay = 'x'\ngo_on = 1", "rule 1: go_on: must be true or false"),
        ("[[rules]]\nsay = 'x'\ntimes = 0", "rule 1: times: must be a whole number from 1"),
        ("[[rules]]\ncall = 'x'", "rule 1: call: must be a table"),
        ("[[rules]]\ncall = { arguments = {} }", "rule 1: tool: must be a string"),
        ("[[rules]]\ncall = { tool = 'x', arguments = { a = { b = 1 } } }", "call.arguments.a: must be"),
        ("[[rules]]\nset = { a = 1 }", "a: must be a string"),
        ("extra = 1\n[[rules]]\nsay = 'x'", "extra: unknown key"),
        ("slots = 1\n[[rules]]\nsay = 'x'", "slots: must be a table"),
        ("[[rules]\n", "not TOML"),
    ],
)
def test_faults_are_named_with_their_place(text, complaint):
    with pytest.raises(RulesError, match=complaint) as caught:
        book(text)
    assert str(caught.value).startswith("my.toml")


def test_the_format_must_be_named():
    with pytest.raises(RulesError, match="format: must be 1"):
        rulebook.parse("[[rules]]\nsay = 'x'")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RulesError, match=r"engine\.brain\.rules: .*none\.toml cannot be read"):
        rulebook.load(tmp_path / "none.toml")


def test_the_example_in_the_documentation_is_right():
    """The page's example answers as the page says."""
    import pathlib
    import re

    page = pathlib.Path(__file__).parents[4] / "docs" / "reference" / "rules-brain.md"
    example = re.search(r"```toml\n(format = 1\n.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    rules = rulebook.parse(example.group(1))
    spoken = {"type": "message", "role": "assistant", "content": []}
    assert reply(rules, []).say == ("Hello, this is Blue Door Pizza.", "What can I get you?")
    answer = reply(
        rules,
        [spoken, user("Two large margheritas, please.")],
        tools=[
            tool(
                "place_order",
                ["pizza"],
                pizza={"type": "string"},
                count={"type": "integer"},
                size={"enum": ["L", "LARGE"]},
            )
        ],
    )
    assert answer.calls == (("place_order", {"pizza": "margherita", "count": 2, "size": "LARGE"}),)
    items = [spoken, user("Two large margheritas"), called("place_order"), result('{"minutes": 25}')]
    assert reply(rules, items).say == ("It will be ready in 25 minutes.", "Anything else?")
