"""tidegate.yaml: everything has a default, and every mistake is one clear line with its place."""

from pathlib import Path

import pytest

from tidegate.config import find, load
from tidegate.core.errors import BadInput, InvalidFile


def write(folder: Path, text: str | bytes) -> Path:
    file = folder / "tidegate.yaml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gatway: {port: 1}", "1: gatway: unknown key 'gatway'. Did you mean 'gateway'?"),
        ("gateway:\n  prot: 1", "2: gateway.prot: unknown key 'prot'. Did you mean 'port'?"),
        ("gateway:\n  port: '80'", "2: gateway.port: "),
        ("gateway:\n  port: 70000", "2: gateway.port: "),
        ("timezone: Mars/Olympus", "1: timezone: not a time zone name"),
        ("project: Not Good", "1: project: "),
        ("providers:\n  a: {dialect: opnai}", "2: providers.a.dialect: "),
        ("providers:\n  a:\n    base_url: ftp://x", "3: providers.a.base_url: a base_url starts with http"),
        ("routes:\n  r: {targets: []}", "2: routes.r.targets: "),
        ("routes:\n  r: {}", "2: routes.r.targets: is missing."),
        (
            "providers: {openai: {}}\nroutes:\n  r: {targets: [opnai/x]}",
            "3: routes.r.targets[0]: no provider named 'opnai'. Did you mean 'openai'?",
        ),
        (
            "providers: {openai: {}}\nroutes:\n  r: {targets: [openai]}",
            "3: routes.r.targets[0]: 'openai' is not provider/model",
        ),
        ("telemetry: {content_sample: 2}", "1: telemetry.content_sample: "),
        ("telemetry: {content_sample: .nan}", "1: telemetry.content_sample: .nan is not a finite number."),
        ("prices: {a/b: {input: 1}}", "1: prices.a/b.output: is missing."),
        ("budgets: {evry_key: {day: 1}}", "1: budgets.evry_key: unknown key 'evry_key'. Did you mean 'each_key'?"),
        ("limits: {keys: {ann: {rpm: 1}}}", "1: limits.keys.ann.rpm: unknown key 'rpm'."),
        ("limits: {total: {concurrent: 0}}", "1: limits.total.concurrent: "),
        ("budgets: {total: {day: -1}}", "1: budgets.total.day: "),
        ("budgets: {total: {day: .inf}}", "1: budgets.total.day: "),
        (
            (
                "providers: {openai: {}}\nroutes: {fast: {targets: [openai/x]}}\n"
                "limits:\n  models: {fats: {concurrent: 1}}"
            ),
            "4: limits.models.fats: no route or provider/model 'fats'. Did you mean 'fast'?",
        ),
        (
            "providers: {openai: {}}\nbudgets:\n  models: {opnai/gpt-4.1: {day: 1}}",
            (
                "3: budgets.models.opnai/gpt-4.1: no route or provider/model 'opnai/gpt-4.1'."
                " Did you mean 'openai/gpt-4.1'?"
            ),
        ),
        ("gateway: {port: 1}\ngateway: {port: 2}", "2: gateway: this key stands twice."),
        ("gateway: [", "not valid YAML"),
        ("- a", "1: "),
        ("just text", "1: "),
        (b"project: \xff", "1: not valid UTF-8."),
        ("a: &a [x, x]\nb: &b [*a, *a]\n", "unknown key"),
        ("project: !!python/object:os.system x", "1: project: "),
    ],
)
def test_a_mistake_is_one_line_with_its_place(tmp_path: Path, text: str | bytes, expected: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(InvalidFile) as caught:
        load(file)
    assert caught.value.exit_code == 4
    assert str(caught.value).startswith(f"{file}:")
    assert expected in str(caught.value)


def test_several_mistakes_are_told_at_once(tmp_path: Path) -> None:
    file = write(tmp_path, "gateway: {port: x}\nconsole: {port: y}\ntimezone: z\n")
    with pytest.raises(InvalidFile) as caught:
        load(file)
    assert [problem.line for problem in caught.value.problems] == [1, 2, 3]


def test_aliases_that_multiply_are_stopped(tmp_path: Path) -> None:
    bomb = "\n".join([f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" if n else "a0: &a0 [x]" for n in range(10)])
    with pytest.raises(InvalidFile, match="more than 200,000 values"):
        load(write(tmp_path, bomb))


def test_depth_is_bounded(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match=r"nested|not valid YAML"):
        load(write(tmp_path, "a: " + "[" * 5_000 + "]" * 5_000))


@pytest.mark.parametrize(
    "address",
    [
        *("http://", "http:///v1", "http://host:99999", "http://host:0", "http://host:x/v1", "http://[::1/v1"),
        *("http://ann:secret@host/v1", "http://host/v1?api-version=1", "http://host/v1?", "http://host/v1#part"),
        *("http://a b/v1", "http://host/v 1", "http://b\u00fccher.example", "http://host/\u00fc", "http://ho\\nst/v1"),
    ],
)
def test_an_address_that_no_call_could_go_to_is_refused_with_its_place(tmp_path: Path, address: str) -> None:
    """And not shown: a password may stand in it."""
    with pytest.raises(InvalidFile) as caught:
        load(write(tmp_path, f'providers:\n  a:\n    base_url: "{address}"'))
    assert "tidegate.yaml:3: providers.a.base_url: a base_url is http:// or https://, a host" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    config = load(write(tmp_path, "")).config
    assert (config.gateway.host, config.gateway.port, config.console.port) == ("127.0.0.1", 4000, 4001)
    assert config.gate.protects == ["production"]


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no tidegate.yaml in .* or above it.*tidegate init"):
        find(tmp_path)
    with pytest.raises(BadInput, match="no such file"):
        load(tmp_path / "tidegate.yaml")


def test_the_nearest_file_upwards_is_found(tmp_path: Path) -> None:
    write(tmp_path, "project: shop")
    below = tmp_path / "prompts" / "support"
    below.mkdir(parents=True)
    assert find(below).root == tmp_path
    assert find(below).config.project == "shop"


def test_a_literal_key_is_never_shown(tmp_path: Path) -> None:
    config = load(write(tmp_path, "providers: {openai: {api_key: sk-canary-0001}}")).config
    assert "sk-canary" not in repr(config)
    assert "sk-canary" not in str(config.model_dump(mode="json"))


@pytest.mark.parametrize("field", ["api_key", "secret_access_key", "session_token", "service_account"])
def test_a_key_that_looks_like_a_number_is_not_shown_either(tmp_path: Path, field: str) -> None:
    with pytest.raises(InvalidFile, match=rf"{field}: must be a string\.") as caught:
        load(write(tmp_path, f"providers: {{openai: {{{field}: 8301947}}}}"))
    assert "8301947" not in str(caught.value)


def test_yaml_1_2_scalars(tmp_path: Path) -> None:
    """`no` is a word, not false; 0o10 is eight; an unquoted number is not a string."""
    with pytest.raises(InvalidFile, match="not a time zone name"):
        load(write(tmp_path, "timezone: no"))
    assert load(write(tmp_path, "gateway: {port: 0o10}")).config.gateway.port == 8
