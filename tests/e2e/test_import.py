"""A promptfoo configuration, imported, linted and evaluated by the real commands: the verdicts are promptfoo's."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from tests.provider import Provider, Said

FILES = {
    "tidegate.yaml": """
providers: {{openai: {{dialect: openai, api_key: "${{env:KEY}}", base_url: "{url}"}}}}
prices: {{"openai/*": {{input: 1, output: 1}}}}
""",
    "chat.json": """[
  {"role": "system", "content": "You answer for a shop{% if polite %}, politely{% endif %}."},
  {"role": "user", "content": "{{ question }}"}
]""",
    "tools.yaml": """
- type: function
  function:
    name: find_order
    description: Finds an order
    parameters: {type: object, properties: {number: {type: string, description: Its number}}, required: [number]}
""",
    "tests.csv": """question,__expected,__expected2,__description
When do you open?,"contains-any:nine, 9",not-contains:closed,opens
Is tea in stock?,equals:Yes,,in stock
How far is it?,levenshtein(3):two miles,,far
""",
    "promptfooconfig.yaml": """
description: What a shop says
prompts: [{id: file://chat.json, label: shop}]
providers: [{id: "openai:chat:gpt-4.1-mini-2025-04-14", config: {temperature: 0, tools: file://tools.yaml}}]
defaultTest:
  vars: {polite: true}
  options: {provider: "openai:gpt-4.1-2025-04-14"}
  assert: [{type: not-icontains, value: as an ai}, {type: latency, threshold: 60000}]
tests:
  - file://tests.csv
  - description: half is enough
    vars: {question: What is tea?}
    assert:
      - {type: assert-set, threshold: 0.5, assert: [{type: contains, value: leaf}, {type: contains, value: cup}]}
  - description: weighed
    vars: {question: What is coffee?}
    threshold: 0.8
    assert: [{type: contains, value: bean}, {type: contains, value: cup}]
  - description: looks it up
    vars: {question: Where is order 7?}
    assert: [{type: is-valid-openai-tools-call}, {type: tool-call-f1, value: find_order}]
  - description: judged
    vars: {question: Is it nice?}
    assert: [{type: contains, value: nice}, {type: llm-rubric, value: is polite}]
  - description: runs code
    vars: {question: Anything else?}
    assert: [{type: javascript, value: output.length > 1}, {type: contains, value: bye}]
""",
}
ORDER = {"id": "c", "type": "function", "function": {"name": "find_order", "arguments": '{"number": "7"}'}}
ANSWERS: dict[str, Said] = {
    "When do you open?": "At 9.",
    "Is tea in stock?": "Yes.",
    "How far is it?": "10 miles",
    "What is tea?": "A leaf.",
    "What is coffee?": "A bean.",
    "Where is order 7?": {"role": "assistant", "content": None, "tool_calls": [ORDER]},
    "Is it nice?": "Rather nice.",
    "Anything else?": "As an AI I say bye.",
}
FAIL = {"in stock", "weighed", "runs code"}
"""`Yes.` is not `Yes`; three of four checks are 0.75, under 0.8; `As an AI` is refused by default."""


def say(asked: dict[str, Any]) -> tuple[int, Said]:
    text = asked["messages"][-1]["content"]
    if token := re.search(r'"id": "([0-9a-f]{16})"', text):
        return 200, json.dumps({"id": token[1], "reason": "it is curt", "verdict": "fail"})
    assert asked["messages"][0]["content"] == "You answer for a shop, politely."
    assert asked["tools"][0]["function"]["name"] == "find_order"
    return 200, ANSWERS[text]


def test_from_a_configuration_to_its_verdicts(tmp_path: Path) -> None:
    with Provider(say) as provider:
        for name, text in FILES.items():
            (tmp_path / name).write_text(text.format(url=provider.url) if name == "tidegate.yaml" else text)

        def tidegate(*words: str) -> tuple[int, str]:
            done = subprocess.run(
                [sys.executable, "-m", "tidegate", *words],
                cwd=tmp_path,
                env={**os.environ, "KEY": "k", "COLUMNS": "200", "HOME": str(tmp_path)},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            return done.returncode, done.stdout + done.stderr

        code, said = tidegate("import", "promptfoo", "promptfooconfig.yaml", "--name", "shop")
        assert code == 1
        assert "1 refused, 2 changed: look at each" in said
        assert "becomes the judge 'llm-rubric', which decides nothing until it is calibrated" in said
        assert "`javascript`: runs code" in said
        assert tidegate("lint")[0] == 0
        code, said = tidegate("eval", "shop", "--junit", "eval.xml")
        assert code == 0, said
    cases = list(ET.parse(tmp_path / "eval.xml").iter("testcase"))  # noqa: S314 - tidegate wrote it
    assert {case.get("name") for case in cases if case.find("failure") is not None} == FAIL
    assert len(cases) == len(ANSWERS) + 1, "and one of the whole run"
    assert "llm-rubric" in said
