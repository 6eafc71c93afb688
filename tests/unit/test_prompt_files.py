"""A prompt's folder: what it means, and every way it can be wrong, each with its file and line."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tidegate.core.artifact import Input, Message, Output, Tool, digest
from tidegate.core.errors import BadInput, InvalidFile, NotFound
from tidegate.prompts.files import PromptFile, list_prompts, load_prompt
from tidegate.prompts.source import MAX_BYTES

WHOLE = """\
---
description: Answers from the context.   # not part of the digest
model: openai/gpt-4.1-2025-04-14
params: {temperature: 0.2, max_output_tokens: 300, stop: END}
inputs: {question: string, context: {type: string, max_chars: 9000}, tone: {type: enum, values: [dry, warm]}}
output: {schema: output.schema.json}
tools: [tools/lookup_order.json]
retrieval: {index: help-centre-2026-03, top_k: 5}
---
system:
You are a {{ tone }} assistant.

user:
Context: {{ context }}

Question: {{ question }}
"""
SCHEMA = '{"type": "object", "properties": {"answer": {"type": "string"}}}'
TOOL = '{"name": "lookup_order", "description": "Finds an order.", "parameters": {"type": "object"}}'


def write(root: Path, text: str | bytes, name: str = "support/answer", **files: str) -> Path:
    folder = root / "prompts" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prompt.md").write_bytes(text if isinstance(text, bytes) else text.encode())
    for file, body in files.items():
        path = folder / file.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(body, "utf-8", newline="")
    return root / "prompts"


def whole(root: Path, text: str | bytes = WHOLE) -> Path:
    return write(root, text, **{"output.schema.json": SCHEMA, "tools__lookup_order.json": TOOL})


def load(root: Path) -> PromptFile:
    return load_prompt(root, "support/answer")


def messages(tmp_path: Path, body: str, front: str = "model: a/b") -> list[tuple[str, str]]:
    artifact = load(write(tmp_path, f"---\n{front}\n---\n{body}")).artifact
    return [(message.role, message.content) for message in artifact.messages]


def problems(root: Path) -> list[str]:
    with pytest.raises(InvalidFile) as caught:
        load(root)
    return str(caught.value).splitlines()


def test_a_whole_prompt_becomes_an_artifact(tmp_path: Path) -> None:
    prompt = load(whole(tmp_path))
    artifact = prompt.artifact
    assert artifact.messages == (
        Message("system", "You are a {{ tone }} assistant."),
        Message("user", "Context: {{ context }}\n\nQuestion: {{ question }}"),
    )
    assert artifact.model == "openai/gpt-4.1-2025-04-14"
    assert artifact.params == {"temperature": 0.2, "max_output_tokens": 300, "stop": ["END"]}
    assert artifact.inputs == {
        "question": Input(),
        "context": Input(max_chars=9000),
        "tone": Input("enum", ("dry", "warm")),
    }
    assert artifact.output == Output("schema", {"type": "object", "properties": {"answer": {"type": "string"}}})
    assert artifact.tools == (Tool("lookup_order", "Finds an order.", {"type": "object"}),)
    assert artifact.retrieval == {"index": "help-centre-2026-03", "top_k": 5}
    assert (prompt.name, prompt.description) == ("support/answer", "Answers from the context.")
    assert prompt.source == WHOLE
    assert not prompt.has_suite


def test_a_suite_beside_it_is_seen(tmp_path: Path) -> None:
    root = whole(tmp_path)
    (root / "support/answer/eval.yaml").write_text("checks: []")
    assert load(root).has_suite


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("Hello\n", [("user", "Hello")]),
        ("\n\nHello", [("user", "Hello")]),
        ("Hello\n\n", [("user", "Hello\n")]),
        ("user:\nHello\n", [("user", "Hello")]),
        ("user:\n\nHello\n", [("user", "\nHello")]),
        ("\nsystem:\nA\n\nuser:\nB\n", [("system", "A"), ("user", "B")]),
        ("system:\nA\nuser:\nB\n", [("system", "A"), ("user", "B")]),
        ("system:\nA\n\n\nuser:\nB\n", [("system", "A\n"), ("user", "B")]),
        ("developer:\nA\nassistant:\t \nB", [("developer", "A"), ("assistant", "B")]),
        ("The roles are system: and user:\n", [("user", "The roles are system: and user:")]),
        (" system:\nA", [("user", " system:\nA")]),
        ("System:\nA", [("user", "System:\nA")]),
        ("tool:\nA", [("user", "tool:\nA")]),
        ("user:\nA\u2028system:\u2028B", [("user", "A\u2028system:\u2028B")]),
        ("user:\nA\x0bsystem:\x0bB", [("user", "A\x0bsystem:\x0bB")]),
    ],
)
def test_role_lines_open_messages(tmp_path: Path, body: str, expected: list[tuple[str, str]]) -> None:
    assert messages(tmp_path, body) == expected


@pytest.mark.parametrize(
    "change", ["crlf", "cr", "bom", "no final newline", "comments", "key order", "defaults", "notes"]
)
def test_layout_is_not_part_of_the_digest(tmp_path: Path, change: str) -> None:
    lines = WHOLE.splitlines()
    variants = {
        "crlf": WHOLE.replace("\n", "\r\n").encode(),
        "cr": WHOLE.replace("\n", "\r").encode(),
        "bom": b"\xef\xbb\xbf" + WHOLE.encode(),
        "no final newline": WHOLE[:-1].encode(),
        "comments": WHOLE.replace("model:", "# why this model\nmodel:").encode(),
        "key order": "\n".join([lines[0], *reversed(lines[1:8]), *lines[8:], ""]).encode(),
        "defaults": WHOLE.replace("question: string", "question: {type: string, max_chars: null}").encode(),
        "notes": WHOLE.replace("question: string", "question: {description: What is asked.}").encode(),
    }
    before, after = load(whole(tmp_path / "a")), load(whole(tmp_path / "b", variants[change]))
    assert digest(after.artifact) == digest(before.artifact)
    assert after.file_sha256 != before.file_sha256


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("assistant.", "assistant. Be warm and friendly."),
        ("2025-04-14", "2025-04-15"),
        ("0.2", "0.3"),
        ("stop: END", "seed: 1"),
        ("9000", "9001"),
        ("[dry, warm]", "[warm, dry]"),
        ("top_k: 5", "top_k: 6"),
        ("{schema: output.schema.json}", "json"),
        ("tools: [tools/lookup_order.json]", "tools: []"),
        ("system:", "developer:"),
        ("model:", "fallbacks: [a/b]\nmodel:"),
        ("model:", "overridable: [seed]\nmodel:"),
        ("schema.json}", "schema.json, constrain: true}"),
        ("question: string", "question: {required: false}"),
        ("question: string", "question: {default: Why?}"),
        ("question: string", "question: {max_tokens: 9}"),
    ],
)
def test_every_change_of_meaning_changes_the_digest(tmp_path: Path, old: str, new: str) -> None:
    assert old in WHOLE
    before, after = load(whole(tmp_path / "a")), load(whole(tmp_path / "b", WHOLE.replace(old, new)))
    assert digest(after.artifact) != digest(before.artifact)


@pytest.mark.parametrize(
    ("front", "line", "message"),
    [
        ("model: [", 3, "not valid YAML: "),
        ("- a", 2, "the front matter must be `key: value` lines."),
        ("params: {}", 2, "model: is missing."),
        ("modell: a/b", 2, "modell: unknown key 'modell'. Did you mean 'model'?"),
        ("model: a/b\nmodel: c/d", 3, "model: this key stands twice."),
        ("model: 5", 2, "model: must be a string (it is 5)."),
        ("model: a b", 2, "model: a model is `provider/model` or the name of a route, without spaces"),
        ("model: a/b\nparams:\n  temperatur: 1", 4, "params.temperatur: unknown key 'temperatur'. Did you mean "),
        ("model: a/b\nparams: {temperature: 2.1}", 3, "params.temperature: "),
        ("model: a/b\nparams: {temperature: warm}", 3, "params.temperature: must be a number (it is 'warm')."),
        ("model: a/b\nparams: {temperature: .nan}", 3, "params.temperature: .nan is not a finite number."),
        ("model: a/b\nparams: {top_p: true}", 3, "params.top_p: must be a number (it is True)."),
        ("model: a/b\nparams: {max_output_tokens: 0}", 3, "params.max_output_tokens: "),
        ("model: a/b\nparams: {seed: 1.5}", 3, "params.seed: must be a whole number (it is 1.5)."),
        ("model: a/b\nparams: {stop: []}", 3, "params.stop: "),
        ("model: a/b\ninputs:\n  q: strng", 4, "inputs.q.type: 'strng' is not a type. Did you mean 'string'"),
        ("model: a/b\ninputs:\n  q: 5", 4, "inputs.q: must be a type, such as `string`, or a mapping"),
        (
            "model: a/b\ninputs:\n  q: {maxchars: 5}",
            4,
            "inputs.q.maxchars: unknown key 'maxchars'. Did you mean 'max_chars'?",
        ),
        ("model: a/b\ninputs:\n  q: enum", 4, "inputs.q: an enum needs its `values: [...]`"),
        ("model: a/b\ninputs:\n  q: {type: number, max_chars: 5}", 4, "inputs.q: `max_chars` belongs to a string"),
        ("model: a/b\ninputs:\n  q: {type: image, max_tokens: 5}", 4, "inputs.q: `max_tokens` belongs to a string, a"),
        ("model: a/b\ninputs:\n  q: {default: 5}", 4, "inputs.q: its default must be a string, not a number."),
        ("model: a/b\ninputs:\n  q: {type: image, default: x}", 4, "inputs.q: its default must be an https:// address"),
        ("model: a/b\ninputs:\n  q: {required: true, default: x}", 4, "inputs.q: what is required needs no `default`"),
        ("model: a/b\ninputs:\n  q: {required: maybe}", 4, "inputs.q.required: must be true or false (it is 'maybe')."),
        ("model: a/b\nfallbacks: c/d", 3, "fallbacks: must be a list (it is 'c/d')."),
        ("model: a/b\nfallbacks:\n- c/d\n- c d", 5, "fallbacks[1]: a model is `provider/model` or the name of a route"),
        ("model: a/b\nfallbacks: [c/d, a/b]", 2, "the fallback 'a/b' is tried before already"),
        ("model: a/b\noverridable: [temperatur]", 3, "overridable: 'temperatur' can not be left to clients. Did you"),
        (
            "model: a/b\noutput: {schema: good.json, constrain: 1}",
            3,
            "output.constrain: must be true or false (it is 1)",
        ),
        ("model: a/b\ninputs:\n  my-q: string", 4, "inputs.my-q: an input is named with letters, digits and '_'"),
        ("model: a/b\n\noutput: jsn", 4, "output: must be `text`, `json` or `{schema: FILE}` (it is 'jsn')."),
        ("model: a/b\noutput: {shema: x.json}", 3, "output.shema: unknown key 'shema'. Did you mean 'schema'?"),
        ("model: a/b\noutput: {schema: x.json}", 3, "output.schema: there is no file 'x.json' in the prompt's folder."),
        ("model: a/b\noutput: {schema: good.jso}", 3, "output.schema: there is no file 'good.jso' in the prompt's "),
        ("model: a/b\noutput: {schema: ../x.json}", 3, "output.schema: '../x.json' must be the path of a file inside"),
        ("model: a/b\noutput: {schema: /etc/passwd}", 3, "output.schema: '/etc/passwd' must be the path of a file "),
        ("model: a/b\ntools:\n- 5", 4, "tools[0]: must be a string (it is 5)."),
        ("model: a/b\ntools:\n- good.json\n- ../../x", 5, "tools[1]: '../../x' must be the path of a file inside"),
        ("model: a/b\ntools: [tool.json, tool.json]", 3, "tools[1]: the tool 'find' stands twice."),
        ("model: a/b\nretrieval: {n: 99999999999999999}", 3, "retrieval.n: 99999999999999999 is beyond"),
        ('model: a/b\nretrieval: {n: "\\ud800"}', 3, ""),
        ("model: a/b\nretrieval: 5", 3, "retrieval: must be a mapping of `key: value` (it is 5)."),
    ],
)
def test_wrong_front_matter_names_its_line(tmp_path: Path, front: str, line: int, message: str) -> None:
    tool = '{"name": "find"}'
    root = write(tmp_path, f"---\n{front}\n---\nHello\n", **{"good.json": "{}", "tool.json": tool})
    assert any(found.startswith(f"prompts/support/answer/prompt.md:{line}: {message}") for found in problems(root))


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "a prompt begins with a line `---` and its front matter."),
        ("Hello", 1, "a prompt begins with a line `---` and its front matter."),
        ("---\nmodel: a/b\nHello\n", 1, "the front matter has no closing line `---`."),
        ("---\nmodel: a/b\n---\n", 4, "there is no message after the front matter."),
        ("---\nmodel: a/b\n---\n\n  \n", 4, "there is no message after the front matter."),
        ("---\nmodel: a/b\n---\n\nHi\nsystem:\nA\n", 5, "this text belongs to no message: put a role line above it"),
        ("---\nmodel: a/b\n---\nsystem:\n\nuser:\nA\n", 4, "the system message is empty."),
        ("---\nmodel: a/b\n---\nsystem:\nA\nuser:\n", 6, "the user message is empty."),
        ("---\nmodel: a/b\n---\nA\n{{ x }\n", 5, "template syntax: "),
        ("---\nmodel: a/b\n---\nA\n{% if true %}\n", 5, "template syntax: "),
        ("---\nmodel: a/b\n---\nsystem:\n{% if true %}\nuser:\nA{% endif %}\n", 5, "template syntax: "),
        ("---\nmodel: a/b\n---\nsystem:\nA\n\nuser:\nB\n{{ qestion }}\n", 9, "the variable 'qestion' is not declared"),
        ("---\nmodel: a/b\n---\n{{ debug() }}\n", 4, "the variable 'debug' is not declared"),
        ("---\nmodel: a/b\n---\nA\n{% include 'x' %}\n", 5, "`{% include %}` is not allowed: a prompt is one file."),
        ("---\nmodel: a/b\n---\n{%- extends 'x' %}\n", 4, "`{% extends %}` is not allowed"),
        ("---\nmodel: a/b\n---\n{% from 'x' import y %}\n", 4, "`{% from %}` is not allowed"),
        (b"---\nmodel: a/b\n---\nA\nB\xff\n", 5, "not valid UTF-8."),
        (b"---\nmodel: a/b\n---\nA\0\n", 4, "holds a NUL byte: save the file as UTF-8."),
        ("---\nmodel: a/b\n---\nA\n".encode("utf-16-le"), 1, "holds a NUL byte: save the file as UTF-8."),
        ("---\nmodel: a/b\n---\nA\n".encode("utf-16"), 1, "holds a NUL byte: save the file as UTF-8."),
    ],
)
def test_wrong_text_names_its_line(tmp_path: Path, text: str | bytes, line: int, message: str) -> None:
    found = problems(write(tmp_path, text))
    assert found[0].startswith(f"prompts/support/answer/prompt.md:{line}: {message}")


@pytest.mark.parametrize(
    ("body", "line", "message"),
    [
        ("user:\n{{ photo|upper }}", 6, "the image 'photo' can only be shown whole, as `{{ photo }}`."),
        ("user:\n\n{% set p = photo %}{{ p }}", 7, "the image 'photo' can only be shown whole"),
        ("system:\n{{ photo }}", 5, "the image 'photo' can not stand in the system message, only in a user message."),
    ],
)
def test_an_image_is_shown_whole_in_a_user_message(tmp_path: Path, body: str, line: int, message: str) -> None:
    found = problems(write(tmp_path, f"---\nmodel: a/b\ninputs: {{photo: image}}\n---\n{body}\n"))
    assert found[0].startswith(f"prompts/support/answer/prompt.md:{line}: {message}")


def test_an_image_may_be_shown_and_asked_for(tmp_path: Path) -> None:
    body = "{% if photo %}{{ photo }} {{- photo -}}{% endif %}{{ photography }}"
    front = "model: a/b\ninputs: {photo: image, photography: string}"
    assert messages(tmp_path, body, front) == [("user", body)]


def test_every_field_of_the_front_matter(tmp_path: Path) -> None:
    front = """\
model: a/b
fallbacks: [c/d, e/f]
overridable: [top_p, system, top_p]
output: {schema: out.json, constrain: true}
inputs:
  question: {description: What is asked., max_tokens: 50}
  tone: {type: enum, values: [dry, warm], default: dry}
  photo: {type: image, required: false}
  sure: {type: boolean, default: false, required: false}
"""
    body = "{{ question }}{{ tone }}{{ photo }}{{ sure }}"
    artifact = load(write(tmp_path, f"---\n{front}---\n{body}", **{"out.json": "{}"})).artifact
    assert (artifact.fallbacks, artifact.overridable) == (("c/d", "e/f"), ("system", "top_p"))
    assert artifact.output == Output("schema", {}, constrain=True)
    assert artifact.inputs == {
        "question": Input(max_tokens=50),
        "tone": Input("enum", ("dry", "warm"), required=False, default="dry"),
        "photo": Input("image", required=False),
        "sure": Input("boolean", required=False, default=False),
    }


def test_an_undeclared_variable_names_the_nearest_input(tmp_path: Path) -> None:
    root = write(tmp_path, "---\nmodel: a/b\ninputs: {question: string}\n---\nHi\n{# {{ no }} #}{{ qestion.x }}\n")
    (found,) = problems(root)
    assert found.startswith("prompts/support/answer/prompt.md:6: the variable 'qestion' is not declared in `inputs`.")
    assert found.endswith("Did you mean 'question'?")


def test_loop_variables_set_variables_and_raw_text_need_no_declaration(tmp_path: Path) -> None:
    body = (
        "{% set y = xs %}{% for x in y %}{{ x }}{{ loop.index }}{% endfor %}{% raw %}{{ z }}{% include 1 %}{% endraw %}"
    )
    assert messages(tmp_path, body, "model: a/b\ninputs: {xs: list, unused: string}") == [("user", body)]


def test_all_problems_are_found_at_once(tmp_path: Path) -> None:
    text = "---\nmodel: a/b\noutput: jsn\ntools: [no.json]\n---\n{{ x }}\n"
    lines = [found.split(": ")[0] for found in problems(write(tmp_path, text))]
    assert lines == [f"prompts/support/answer/prompt.md:{line}" for line in (3, 4, 6)]


@pytest.mark.parametrize(
    ("schema", "line", "message"),
    [
        ('{"type": "object",\n "type": "array"}', 2, "type: this key stands twice in one object."),
        ('{"type": "object"\n "a": 1}', 2, "not valid JSON: "),
        ('{"maximum": NaN}', 1, "NaN is not JSON."),
        ("[]", 1, "a JSON Schema must be an object."),
        ('{"properties": {"a": {"type": "objct"}}}', 1, "properties.a.type: not a valid JSON Schema: "),
        ('{"$ref": "https://example.org/x.json"}', 1, "not a valid JSON Schema: Resource 'https://example.org/x.json'"),
        ('{"$ref": "file:///etc/passwd"}', 1, "not a valid JSON Schema: Resource 'file:///etc/passwd'"),
        ('{"$schema": "https://example.org/meta"}', 1, "not a valid JSON Schema: Unknown meta-schema"),
        ('{"$ref": "#/$defs/none"}', 1, "not a valid JSON Schema: "),
        ('{"pattern": "("}', 1, "pattern: not a valid JSON Schema: "),
        ('{"const": 99999999999999999}', 1, "const: 99999999999999999 is beyond"),
        ('{"const": "\\ud800"}', 1, "const: holds half of a surrogate pair."),
        ("[" * 90 + "]" * 90, 1, "[0][0][0][0][0][0][0][0]: nested more than 64 levels deep."),
        ("[" * 100_000, 1, ""),
    ],
)
def test_a_wrong_schema_file_names_itself(tmp_path: Path, schema: str, line: int, message: str) -> None:
    text = "---\nmodel: a/b\noutput: {schema: out.json}\n---\nHi\n"
    found = problems(write(tmp_path, text, **{"out.json": schema}))
    assert found[0].startswith(f"prompts/support/answer/out.json:{line}: {message}")


@pytest.mark.parametrize(
    ("tool", "message"),
    [
        ("[]", "a tool must be an object"),
        ("{}", "name: is missing."),
        ('{"name": "a b"}', "name: a tool is named with"),
        ('{"name": "a", "parametres": {}}', "parametres: unknown key 'parametres'. Did you mean 'parameters'?"),
        ('{"name": "a", "parameters": {"type": "objct"}}', "parameters.type: not a valid JSON Schema: "),
    ],
)
def test_a_wrong_tool_file_names_itself(tmp_path: Path, tool: str, message: str) -> None:
    found = problems(write(tmp_path, "---\nmodel: a/b\ntools: [t.json]\n---\nHi\n", **{"t.json": tool}))
    assert found[0].startswith(f"prompts/support/answer/t.json:1: {message}")


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    root = write(tmp_path, "---\nmodel: a/b\noutput: {schema: out.json}\n---\nHi\n")
    (tmp_path / "secret.json").write_text("{}")
    (root / "support/answer/out.json").symlink_to(tmp_path / "secret.json")
    assert problems(root) == [
        "prompts/support/answer/prompt.md:3: output.schema: 'out.json' is a link that leads out of the prompt's folder."
    ]


def test_a_prompt_that_is_a_link_out_of_its_folder_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "outside.md").write_text("---\nmodel: a/b\n---\nHi\n")
    folder = tmp_path / "prompts/support/answer"
    folder.mkdir(parents=True)
    (folder / "prompt.md").symlink_to(tmp_path / "outside.md")
    assert "leads out of the prompt's folder" in problems(tmp_path / "prompts")[0]


def test_a_folder_that_is_a_link_out_of_the_project_is_not_read(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", "---\nmodel: a/b\n---\nHi\n")
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts/support").symlink_to(tmp_path / "elsewhere/prompts/support")
    assert problems(tmp_path / "prompts") == ["prompts/support/answer: leads out of prompts/."]


def test_a_pipe_is_not_read(tmp_path: Path) -> None:
    """Reading it would wait for ever."""
    folder = tmp_path / "prompts/support/answer"
    folder.mkdir(parents=True)
    os.mkfifo(folder / "prompt.md")
    assert problems(tmp_path / "prompts") == ["prompts/support/answer/prompt.md: is not a regular file."]


def test_a_prompt_of_more_than_1_mib_is_refused(tmp_path: Path) -> None:
    head = "---\nmodel: a/b\n---\n"
    fits = write(tmp_path / "fits", head + "x" * (MAX_BYTES - len(head)))
    assert load(fits).artifact.messages[0].role == "user"
    root = write(tmp_path / "large", head + "x" * (MAX_BYTES - len(head) + 1))
    assert problems(root) == ["prompts/support/answer/prompt.md: is larger than 1 MiB."]


@pytest.mark.parametrize("name", ["", "A", "a/", "/a", "a//b", "../a", "a/../b", ".a", "a b", "a/B", "x" * 65, "a\n"])
def test_an_impossible_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match="can not be a prompt's name"):
        load_prompt(tmp_path, name)


def test_an_unknown_prompt_names_the_nearest(tmp_path: Path) -> None:
    root = whole(tmp_path)
    with pytest.raises(NotFound, match=re.escape("Did you mean 'support/answer'?")):
        load_prompt(root, "suport/answer")
    with pytest.raises(NotFound, match=re.escape("there is no prompt.md under")):
        load_prompt(tmp_path / "none", "a")


def test_prompts_are_listed_by_name(tmp_path: Path) -> None:
    for name in ("b", "a/c", "a", ".git/x"):
        write(tmp_path, "---\nmodel: a/b\n---\nHi\n", name)
    assert list_prompts(tmp_path / "prompts") == ["a", "a/c", "b"]
    assert list_prompts(tmp_path / "none") == []


def test_a_folder_whose_name_can_not_be_a_prompts_is_an_error_not_a_silence(tmp_path: Path) -> None:
    root = write(tmp_path, "---\nmodel: a/b\n---\nHi\n", "Support")
    with pytest.raises(InvalidFile, match="prompts/Support: a prompt's folder is named with"):
        list_prompts(root)
