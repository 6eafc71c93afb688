"""A call of a prompt: what the artifact decides, what its clients may, and where the call goes."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from pydantic import SecretStr

from tidegate.config import Config, Price, Provider
from tidegate.core.artifact import Artifact, Input, Message, Output, Tool, digest
from tidegate.core.errors import InvalidRequest, UnknownModel, Unusable
from tidegate.core.keys import OPEN, Access
from tidegate.core.ledger import Served
from tidegate.dialects import openai_chat
from tidegate.fakes import FakePrompts, FixedClock, FixedRandom, MemorySpool
from tidegate.gateway.call import Call
from tidegate.gateway.record import Record
from tidegate.gateway.resolve import Plan, resolve
from tidegate.telemetry.record import Origin
from tidegate.upstream.prices import PriceList
from tidegate.upstream.targets import Targets

PNG = "data:image/png;base64,iVBORw0KGgo" + "A" * 100 + "="
CONFIG = Config.model_validate(
    {
        "providers": {"sim": {"base_url": "http://127.0.0.1:1/v1"}, "other": {"base_url": "http://127.0.0.1:2/v1"}},
        "routes": {"support": {"targets": ["other/r-1", "other/r-2"], "retries": 7}},
    }
)
BASE = Artifact(
    messages=(Message("system", "Be brief."), Message("user", "{{ question }}")),
    model="sim/m-1",
    params={"temperature": 0.2, "max_output_tokens": 300},
    inputs={"question": Input()},
    tools=(Tool("find"),),
)


def changed(**fields: Any) -> Artifact:
    return msgspec.structs.replace(BASE, **fields)


def opened() -> Record:
    return Record(Call(b"{}"), "default", FixedClock(), FixedRandom(), MemorySpool())


async def plan(
    artifact: Artifact,
    *,
    origin: Origin = "live",
    record: Record | None = None,
    access: Access = OPEN,
    **body: Any,
) -> Plan:
    record = record or opened()
    record.row.origin = origin
    request = {"model": "prompt:p", "variables": {"question": "why?"}, **body}
    return await resolve(
        openai_chat.DIALECT,
        openai_chat.DIALECT.parse_request(json.dumps(request).encode()),
        record,
        FakePrompts({("p", "production"): Served("p", 1, digest(artifact), artifact)}),
        Targets(CONFIG, PriceList({}, {})),
        access=access,
        random=FixedRandom(),
        headers={},
    )


async def sent(artifact: Artifact, **body: Any) -> dict[str, Any]:
    made = await plan(artifact, **body)
    decoded: dict[str, Any] = json.loads(made.body(made.path.targets[0]))
    return decoded


async def test_few_shot_turns_go_out_in_order_before_the_clients_messages() -> None:
    turns = (Message("user", "2 + 2"), Message("assistant", "4"), Message("user", "{{ question }}"))
    body = await sent(changed(messages=turns), messages=[{"role": "user", "content": "and then?"}])
    assert [(message["role"], message["content"]) for message in body["messages"]] == [
        ("user", "2 + 2"),
        ("assistant", "4"),
        ("user", "why?"),
        ("user", "and then?"),
    ]


@pytest.mark.parametrize("key", ["max_tokens", "max_completion_tokens", "max_output_tokens"])
@pytest.mark.parametrize("overridable", [(), ("max_output_tokens",)])
async def test_the_bound_on_output_can_be_lowered_and_never_raised(key: str, overridable: tuple[str, ...]) -> None:
    artifact = changed(overridable=overridable)
    assert (await sent(artifact, **{key: 50}))["max_tokens"] == 50
    assert (await sent(artifact, **{key: 300}))["max_tokens"] == 300
    assert (await sent(artifact, **{key: None}))["max_tokens"] == 300
    for wrong in (301, 0, -1, "5", 1.5, True):
        with pytest.raises(InvalidRequest) as caught:
            await sent(artifact, **{key: wrong})
        assert caught.value.param == key
        assert key in str(caught.value)


async def test_a_prompt_without_a_bound_takes_the_clients_once() -> None:
    body = await sent(changed(params={}), max_tokens=900, max_completion_tokens=800)
    assert body["max_tokens"] == 800
    assert "max_completion_tokens" not in body


async def test_what_a_prompt_leaves_to_its_clients_is_theirs() -> None:
    artifact = changed(overridable=("system", "temperature", "tool_choice"))
    body = await sent(
        artifact,
        temperature=0.9,
        tool_choice="none",
        messages=[{"role": "system", "content": "Speak Dutch."}],
        user="u-1",
    )
    assert (body["temperature"], body["tool_choice"], body["user"]) == (0.9, "none", "u-1")
    assert [message["content"] for message in body["messages"]] == ["Be brief.", "why?", "Speak Dutch."]
    assert [tool["function"]["name"] for tool in body["tools"]] == ["find"]
    for param, value in {"top_p": 0.5, "tools": [], "response_format": {}}.items():
        with pytest.raises(InvalidRequest) as caught:
            await sent(artifact, **{param: value})
        assert caught.value.param == param


async def test_a_schema_is_sent_only_when_it_shall_constrain() -> None:
    schema = {"type": "object", "properties": {}}
    assert "response_format" not in await sent(changed(output=Output("schema", schema)))
    body = await sent(changed(output=Output("schema", schema, constrain=True)))
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "output", "strict": True, "schema": schema},
    }


@pytest.mark.parametrize(
    ("model", "fallbacks", "expected", "retries"),
    [
        ("sim/m-1", (), ["sim/m-1"], 2),
        ("sim/m-1", ("other/m-2", "sim/m-3"), ["sim/m-1", "other/m-2", "sim/m-3"], 2),
        ("sim/m-1", ("support",), ["sim/m-1", "other/r-1", "other/r-2"], 2),
        ("support", ("sim/m-1",), ["other/r-1", "other/r-2", "sim/m-1"], 7),
    ],
)
async def test_fallbacks_are_tried_after_the_model(
    model: str, fallbacks: tuple[str, ...], expected: list[str], retries: int
) -> None:
    path = (await plan(changed(model=model, fallbacks=fallbacks))).path
    assert [target.name for target in path.targets] == expected
    assert path.retries == retries


async def test_an_eval_is_answered_by_the_model_alone_and_finds_a_fallback_that_does_not_exist() -> None:
    artifact = changed(fallbacks=("other/m-2",))
    assert [target.name for target in (await plan(artifact, origin="eval")).path.targets] == ["sim/m-1"]
    with pytest.raises(UnknownModel, match="othr/m-2"):
        await plan(changed(fallbacks=("othr/m-2",)), origin="eval")


@pytest.mark.parametrize(
    ("model", "hint"),
    [
        ("gpt-4.1", "Did you mean 'openai/gpt-4.1'?"),
        ("r-1", "Did you mean 'other/r-1'?"),
        ("own-1", "Did you mean 'sim/own-1'?"),
        ("opnai/x", "Did you mean 'openai/x'?"),
        ("suport", "Did you mean 'support'?"),
        ("who-knows", "Known: openai/MODEL, other/MODEL, sim/MODEL, support."),
        ("nobody/x", "Known: openai/MODEL, other/MODEL, sim/MODEL, support."),
        ("p/q", "'p/q' is a prompt: call it as 'prompt:p/q'."),
        ("p/q@v1", "'p/q@v1' is a prompt: call it as 'prompt:p/q@v1'."),
    ],
)
async def test_a_model_that_nobody_has_is_told_what_to_call(model: str, hint: str) -> None:
    with pytest.raises(UnknownModel) as refused:
        await named(model)
    assert str(refused.value).endswith(hint)


async def test_a_prompt_that_a_key_may_not_call_is_not_told_of() -> None:
    with pytest.raises(UnknownModel, match="no route"):
        await named("p/q", access=Access(models=("p/*",)))


async def test_a_provider_whose_credential_is_missing_is_logged_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    keyless = Config(providers={"openai": Provider(api_key=SecretStr("${env:NO_SUCH_KEY}"))})
    targets = Targets(keyless, PriceList({}, {}))
    for model in ("openai/a", "openai/a", "openai/b"):
        with pytest.raises(Unusable, match="credential is missing"):
            targets.find(model)
    (said,) = [record.getMessage() for record in caplog.records]
    assert "NO_SUCH_KEY" in said


async def named(model: str, access: Access = OPEN) -> Plan:
    """A call of a model by a name."""
    config = CONFIG.model_copy(update={"providers": {**CONFIG.providers, "openai": Provider()}})
    return await resolve(
        openai_chat.DIALECT,
        openai_chat.DIALECT.parse_request(json.dumps({"model": model, "messages": []}).encode()),
        opened(),
        FakePrompts({("p/q", "production"): Served("p/q", 1, digest(BASE), BASE)}),
        Targets(config, PriceList({"sim/own-1": Price(input=Decimal(1), output=Decimal(1))}, {"openai": "openai"})),
        access=access,
        random=FixedRandom(),
        headers={},
    )


async def test_an_image_is_sent_whole_and_recorded_by_its_size() -> None:
    artifact = changed(
        messages=(Message("user", "Look: {{ photo }}\n{{ question }}"),),
        inputs={"photo": Input("image"), "question": Input()},
    )
    record = opened()
    made = await plan(artifact, record=record, variables={"photo": PNG, "question": "What is it?"})
    (message,) = json.loads(made.body(made.path.targets[0]))["messages"]
    assert message["content"] == [
        {"type": "text", "text": "Look: "},
        {"type": "image_url", "image_url": {"url": PNG}},
        {"type": "text", "text": "\nWhat is it?"},
    ]
    assert PNG not in record.input
    assert "data:image/png;base64,[112 characters left out]" in record.input
    assert record.variables == {
        "photo": "data:image/png;base64,[112 characters left out]",
        "question": "What is it?",
    }
