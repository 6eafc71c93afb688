"""The diff of two artifacts: field by field, word by word, empty exactly when the digests agree."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from tidegate.core.artifact import Artifact, Input, Message, Output, Tool, canonical, digest, from_canonical
from tidegate.core.diff import Change, diff

BASE = Artifact(
    messages=(Message("system", "You are a support assistant.\nAnswer as JSON."), Message("user", "{{ question }}")),
    model="openai/gpt-4.1",
    params={"temperature": 0.2},
    inputs={"question": Input()},
    output=Output("schema", {"type": "object", "properties": {"answer": {"type": "string"}}}),
    tools=(Tool("find"), Tool("book")),
    retrieval={"index": "a", "top_k": 5},
)


def changed(**fields: Any) -> Artifact:
    return msgspec.structs.replace(BASE, **fields)


def test_the_same_content_has_no_difference() -> None:
    same = from_canonical(canonical(BASE))
    assert diff(BASE, same).empty
    assert diff(BASE, same).lines() == []


def test_a_changed_message_is_shown_by_line_and_by_word() -> None:
    friendly = "You are a warm and friendly support assistant.\nAnswer as JSON."
    found = diff(BASE, changed(messages=(Message("system", friendly), BASE.messages[1])))
    assert found.lines() == [
        "@@ system message @@",
        "-You are a support assistant.",
        "+You are a warm and friendly support assistant.",
        " Answer as JSON.",
    ]
    assert found.messages[0].words == (
        ("same", "You are a "),
        ("add", "warm and friendly "),
        ("same", "support assistant.\nAnswer as JSON."),
    )
    assert found.messages[0].index == 0
    assert found.changes == ()


def test_an_added_message_does_not_shift_the_others() -> None:
    extra = Message("assistant", "Yes?")
    found = diff(BASE, changed(messages=(BASE.messages[0], extra, BASE.messages[1])))
    assert [(message.index, message.before_role, message.after_role) for message in found.messages] == [
        (1, None, "assistant")
    ]
    assert found.lines() == ["@@ assistant message @@", "+Yes?"]


def test_a_removed_message_and_a_changed_role_are_shown() -> None:
    found = diff(BASE, changed(messages=(Message("developer", BASE.messages[0].content),)))
    assert [message.title for message in found.messages] == ["system → developer message", "user message"]
    assert found.lines() == ["@@ system → developer message @@", "@@ user message @@", "-{{ question }}"]


def test_a_hunk_far_down_says_its_line() -> None:
    before = "\n".join(f"line {number}" for number in range(1, 21))
    after = before.replace("line 20", "line twenty")
    found = diff(changed(messages=(Message("user", before),)), changed(messages=(Message("user", after),)))
    assert found.lines() == [
        "@@ user message, line 17 @@",
        " line 17",
        " line 18",
        " line 19",
        "-line 20",
        "+line twenty",
    ]


def test_every_other_field_is_a_path_with_its_two_values() -> None:
    after = changed(
        model="openai/gpt-4.1-mini",
        params={"temperature": 0.7, "seed": 1},
        inputs={"question": Input(max_chars=100)},
        output=Output("schema", {"type": "object", "properties": {"answer": {"type": "number"}}}),
        tools=(Tool("find", "Finds."), Tool("pay")),
        retrieval=None,
    )
    assert diff(BASE, after).changes == (
        Change("model", "openai/gpt-4.1", "openai/gpt-4.1-mini"),
        Change("params.seed", after=1),
        Change("params.temperature", 0.2, 0.7),
        Change("inputs.question.max_chars", after=100),
        Change("output.schema.properties.answer.type", "string", "number"),
        Change("tools.book", before={"description": "", "parameters": {}}),
        Change("tools.find.description", "", "Finds."),
        Change("tools.pay", after={"description": "", "parameters": {}}),
        Change("retrieval", before={"index": "a", "top_k": 5}),
    )


def test_the_order_of_tools_is_a_change() -> None:
    found = diff(BASE, changed(tools=BASE.tools[::-1]))
    assert found.changes == (Change("tools", ["find", "book"], ["book", "find"]),)


def test_text_and_number_of_one_spelling_are_told_apart() -> None:
    found = diff(changed(retrieval={"k": 5}), changed(retrieval={"k": "5"}))
    assert found.lines() == ["@@ retrieval.k @@", "-5", '+"5"']


def test_a_diff_is_plain_json() -> None:
    found = diff(BASE, changed(params={}))
    assert msgspec.json.decode(msgspec.json.encode(found)) == {
        "messages": [],
        "changes": [{"path": "params.temperature", "before": 0.2}],
    }


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-2, 2) | st.sampled_from(["", "a", "1", "true"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=5,
)
ARTIFACTS = st.builds(
    Artifact,
    messages=st.lists(
        st.builds(Message, st.sampled_from(["system", "user"]), st.text("ab \n", max_size=8)), min_size=1, max_size=3
    ).map(tuple),
    model=st.sampled_from(["a/b", "a/c"]),
    params=st.dictionaries(st.sampled_from(["temperature", "seed"]), st.sampled_from([0, 1, 1.0, 0.0, -0.0, True])),
    inputs=st.dictionaries(
        st.sampled_from("xy"),
        st.builds(Input, st.sampled_from(["string", "enum"]), st.lists(st.sampled_from("ab"), max_size=2).map(tuple)),
    ),
    output=st.builds(
        Output,
        st.sampled_from(["text", "json", "schema"]),
        st.none() | st.dictionaries(st.sampled_from("ab"), JSON, max_size=2),
    ),
    tools=st.lists(st.builds(Tool, st.sampled_from(["f", "g"]), st.sampled_from(["", "d"])), max_size=3).map(tuple),
    retrieval=st.none() | st.dictionaries(st.sampled_from("ab"), JSON, max_size=2),
)


@given(ARTIFACTS, ARTIFACTS)
def test_a_diff_is_empty_exactly_when_the_digests_agree(a: Artifact, b: Artifact) -> None:
    assert diff(a, b).empty == (digest(a) == digest(b))
    assert diff(a, a).empty


@given(st.text("ab .\n", max_size=40), st.text("ab .\n", max_size=40))
def test_the_words_make_both_texts_again(before: str, after: str) -> None:
    messages = diff(changed(messages=(Message("user", before),)), changed(messages=(Message("user", after),))).messages
    assert bool(messages) == (before != after)
    for message in messages:
        assert "".join(text for op, text in message.words if op != "add") == before
        assert "".join(text for op, text in message.words if op != "del") == after


@given(ARTIFACTS)
def test_the_canonical_form_reads_back_to_the_same_digest(artifact: Artifact) -> None:
    assert digest(from_canonical(canonical(artifact))) == digest(artifact)


def test_a_large_message_is_compared_in_bounded_time() -> None:
    """Every word differs: comparing words would be 10^10 steps."""
    before, after = " ".join(["a"] * 100_000), " ".join(["b"] * 100_000)
    (message,) = diff(
        changed(messages=(Message("user", before),)), changed(messages=(Message("user", after),))
    ).messages
    assert message.words == (("del", before), ("add", after))


def test_fields_that_are_not_set_are_no_difference_and_set_ones_are() -> None:
    found = diff(
        BASE,
        changed(
            fallbacks=("a/b",),
            overridable=("temperature",),
            output=msgspec.structs.replace(BASE.output, constrain=True),
            inputs={"question": Input(max_tokens=9, required=False, default="why?")},
        ),
    )
    assert found.changes == (
        Change("fallbacks", [], ["a/b"]),
        Change("overridable", [], ["temperature"]),
        Change("inputs.question.default", after="why?"),
        Change("inputs.question.max_tokens", after=9),
        Change("inputs.question.required", after=False),
        Change("output.constrain", after=True),
    )


def test_the_words_of_a_long_message_are_all_of_it() -> None:
    """The standard library's grouping cuts the list that it groups."""
    lines = [f"line {number}" for number in range(40)]
    before, after = "\n".join(lines), "\n".join([*lines[:20], "other", *lines[21:]])
    (message,) = diff(
        changed(messages=(Message("user", before),)), changed(messages=(Message("user", after),))
    ).messages
    assert "".join(text for op, text in message.words if op != "add") == before
    assert "".join(text for op, text in message.words if op != "del") == after
    assert message.lines[0] == "@@ user message, line 18 @@"
