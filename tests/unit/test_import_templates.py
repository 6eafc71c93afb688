"""Handlebars, Mustache, Nunjucks and Jinja2 in our template language: what each renders, and what it can not."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.core.errors import InvalidFile
from tidegate.prompts import template
from tidegate.prompts.importing import handlebars, jinja

LIST = {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}}}}
HOUSE = {"name": "Ann", "dogs": ["Rex", "Fly"], "room": {"no": 7, "view": {"of": "sea"}}, "yes": True, "none": []}


def filled(text: str, values: Mapping[str, Any]) -> str:
    return template.environment().render_str(text, **values)


def bars(source: str, **options: Any) -> handlebars.Translated:
    settings: dict[str, Any] = {"file": "f", "first_line": 1, "schemas": {}, "optional": frozenset(), **options}
    return handlebars.translate(source, **settings)


def shown(source: str, values: Mapping[str, Any], **options: Any) -> str:
    translated = bars(source, **options)
    assert translated.found == []
    (part,) = translated.parts
    return filled(part.text, values)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{name}} {{{name}}} {{& name}} {{ name }}", "Ann Ann Ann Ann"),
        ("{{room.no}}/{{room.view.of}}/{{room.gone}}/{{room.gone.deeper}}", "7/sea//"),
        ("{{dogs.[1]}} {{dogs.0}} {{this.name}} {{./name}}", "Fly Rex Ann Ann"),
        ("{{#if yes}}a{{else}}b{{/if}}{{#if none}}c{{else}}d{{/if}}", "ad"),
        ("{{#if none}}1{{else if room.gone}}2{{else if yes}}3{{else}}4{{/if}}", "3"),
        ("{{#unless none}}x{{/unless}}{{#unless room.no}}y{{else}}z{{/unless}}", "xz"),
        ("{{#each dogs}}{{@index}}{{this}}{{#if @first}}!{{/if}}{{#unless @last}},{{/unless}}{{/each}}", "0Rex!,1Fly"),
        ("{{#each none}}x{{else}}nobody{{/each}}", "nobody"),
        ("{{#each dogs}}{{.}} of {{../name}} {{@root.name}};{{/each}}", "Rex of Ann Ann;Fly of Ann Ann;"),
        ("{{#each dogs as |dog i|}}{{i}}{{dog}}{{/each}}", "0Rex1Fly"),
        ("{{#each room.gone}}x{{/each}}|", "|"),
        ("{{#with room}}{{no}} {{view.of}} {{../name}}{{/with}}{{#with none}}x{{else}}y{{/with}}", "7 sea Anny"),
        ("{{#with room as |r|}}{{r.no}}{{/with}}", "7"),
        (
            '{{#ifEquals name "Ann"}}=={{else}}!={{/ifEquals}}{{#unlessEquals room.no 7}}x{{else}}7{{/unlessEquals}}',
            "==7",
        ),
        ("{{json dogs indent=1}}", '[\n "Rex",\n "Fly"\n]'),
        ("a{{! c }}b{{!-- }} --}}c", "abc"),
        ("a  {{~name~}}  b {{~#if yes~}} c {{~/if~}} d", "aAnnbcd"),
        ("\\{{name}} {% if %} {# no #} {{name}} {", "{{name}} {% if %} {# no #} Ann {"),
        ('{"n": "{{name}}", "r": {"no":{{room.no}}}}', '{"n": "Ann", "r": {"no":7}}'),
    ],
)
def test_handlebars_renders_as_it_is_documented(source: str, expected: str) -> None:
    assert shown(source, HOUSE) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a\n{{#if yes}}\nb\n{{/if}}\nc", "a\nb\nc"),
        ("a\n  {{#if yes}}  \n  b\n  {{/if}}\nc", "a\n  b\nc"),
        ("{{#if yes}}\n\nb\n{{/if}}", "\nb\n"),
        ("a\n{{! nothing }}\nb", "a\nb"),
        ("{{#each dogs}}\n- {{this}}\n{{/each}}\nend", "- Rex\n- Fly\nend"),
        ("x {{#if yes}}\ny\n{{/if}} z", "x \ny\n z"),
        ("{{#if none}}\na\n{{else}}\n{{#if yes}}\nb\n{{/if}}\n{{/if}}\n", "b\n"),
        ("{{name}}\n{{name}}\n", "Ann\nAnn\n"),
    ],
)
def test_a_line_of_nothing_but_a_tag_vanishes(source: str, expected: str) -> None:
    assert shown(source, HOUSE) == expected


def test_handlebars_writes_true_and_not_python_s_true() -> None:
    flag = {"flag": {"type": "boolean"}}
    assert shown("{{flag}}", {"flag": False}, schemas=flag) == "false"
    assert shown("{{flag}}", {"flag": ""}, schemas=flag, optional=frozenset({"flag"})) == ""
    inner = {"a": {"type": "object", "properties": {"flag": {"type": "boolean"}}}}
    assert shown("{{a.flag}}", {"a": {"flag": True}}, schemas=inner) == "true"
    assert shown("{{a.flag}}", {"a": {}}, schemas=inner) == ""


def test_a_loop_over_an_object_has_keys() -> None:
    ages = {"ages": {"Ann": 3}}
    assert shown("{{#each ages}}{{@key}}={{this}}{{/each}}", ages) == "Ann=3"
    assert shown("{{#each ages}}{{this}}{{/each}}", ages, schemas={"ages": {"type": "object"}}) == "3"


@pytest.mark.parametrize(
    ("source", "values", "expected"),
    [
        ("{{#list}}{{name}},{{/list}}{{^list}}none{{/list}}", {"list": [{"name": "a"}, {}]}, "a,,"),
        ("{{#list}}x{{/list}}{{^list}}none{{/list}}", {"list": []}, "none"),
        ("{{#yes}}{{owner}}{{/yes}}{{^yes}}no{{/yes}}", {"yes": True, "owner": "Ann"}, "Ann"),
        ("{{#text}}[{{.}}]{{/text}}", {"text": "t"}, "[t]"),
        ("{{#list}}{{name}} {{title}};{{/list}}", {"list": [{"name": "a"}], "title": "T"}, "a T;"),
        ("{{#room}}{{no}}{{/room}}", {"room": {"no": 7}}, "7"),
    ],
)
def test_mustache_sections_do_what_the_value_says(source: str, values: dict[str, Any], expected: str) -> None:
    schemas = {
        "list": LIST,
        "room": {"type": "object", "properties": {"no": {"type": "integer"}}},
        "yes": {"type": "boolean"},
        **{name: {"type": "string"} for name in ("text", "title", "owner")},
    }
    assert shown(source, values, schemas=schemas, mustache=True) == expected


@pytest.mark.parametrize(
    ("source", "kind", "why"),
    [
        ("{{> header}}", "left out", "partials"),
        ("{{shout name}}", "refused", "would run code"),
        ("{{#list name}}x{{/list}}", "refused", "would run code"),
        ("{{#if (eq a b)}}x{{/if}}", "refused", "one name"),
        ('{{#if a}}{{role "user"}}{{/if}}', "left out", "roles are found before anything is filled in"),
        ("{{#each a}}{{history}}{{/each}}", "left out", "can not begin inside a block"),
        ("{{@state.x}}", "left out", "data of your program"),
        ("{{lookup a b}}", "refused", "would run code"),
        ('{{section "notes"}}', "left out", "pending"),
        ('{{media url="https://example.org/x.png"}}', "left out", "an input of its own"),
        ("{{this}}", "left out", "all inputs together"),
        ("{{../name}}", "left out", "leads out"),
        ("{{#maybe}}x{{/maybe}}", "left out", "is not declared"),
        ("{{user-name}}", "left out", "letters, digits"),
    ],
)
def test_what_has_no_counterpart_becomes_a_comment_and_is_reported(source: str, kind: str, why: str) -> None:
    translated = bars(f"a\nb {source} c")
    assert [(found[0], found[1]) for found in translated.found] == [(kind, 2)]
    assert why in translated.found[0][2]
    assert filled(translated.parts[0].text, {}) == "a\nb  c"
    assert "{# left out: {{" in translated.parts[0].text


@pytest.mark.parametrize(
    "source", ["{{#if a}}", "{{/if}}", "{{#if a}}{{/each}}", "x {{ a", "{{else}}", "{{#if a}}" * 65, "{{{{a}}}}"]
)
def test_blocks_that_do_not_match_are_an_error_with_their_line(source: str) -> None:
    with pytest.raises(InvalidFile, match=r"^f:2: "):
        bars("first line\n" + source)


def test_roles_split_a_template_on_its_top_level() -> None:
    parts = bars("a{{role \"system\"}}b\n{{history}}{{role 'model'}}c").parts
    assert [(part.kind, part.text, part.line) for part in parts if part.text.strip() or part.kind == "history"] == [
        ("text", "a", 1),
        ("role", "system", 1),
        ("text", "b\n", 1),
        ("history", "", 2),
        ("role", "model", 2),
        ("text", "c", 2),
    ]


@given(st.text(alphabet="{}%#~!/^>&\\\"' \nabif", max_size=40))
def test_any_text_is_translated_or_refused(source: str) -> None:
    """Nothing but InvalidFile comes out, and what is made can be compiled."""
    try:
        translated = bars(source)
    except InvalidFile:
        return
    for part in translated.parts:
        template.environment().add_template("x", part.text)


@given(st.text(alphabet="{}%#-\"'|. \nabifendfor", max_size=40))
def test_any_nunjucks_is_translated_or_refused(source: str) -> None:
    translated = jinja.translate(source, "nunjucks")
    if not translated.fatal:
        template.environment().add_template("x", translated.text)


@given(st.text(alphabet="{}%#\\\"' \nab", max_size=40))
def test_a_literal_renders_itself(text: str) -> None:
    assert filled(jinja.literal(text), {}) == text


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ name }} {{name}} {{- name -}} x", "Ann AnnAnnx"),
        ("{{ room.no }}{{ room.gone }}{{ room.gone | default('-') }}", "7-"),
        ("{% if room.gone %}a{% elseif yes and not none %}b{% else %}c{% endif %}", "b"),
        (
            "{% for d in dogs %}{{ loop.index }}{{ d }}{% if not loop.last %},{% endif %}{% else %}-{% endfor %}",
            "1Rex,2Fly",
        ),
        ("{% for d in room.gone %}x{% endfor %}|", "|"),
        ("{{ name | upper }}{{ name | lower | length }}{{ dogs | join('+') }}{{ ' x ' | trim }}", "ANN3Rex+Flyx"),
        ("{{ 'a' if yes else 'b' }}{{ dogs[0] }}", "aRex"),
        ("{# gone #}{% raw %}{{ raw }}{% endraw %}{% verbatim %}{{ x }}{% endverbatim %}", "{{ raw }}{{ x }}"),
        ("{{ room | dump(1) }}", '{\n "no": 7,\n "view": {\n  "of": "sea"\n }\n}'),
        ("{{ yes }} {{ dogs }}", "true Rex,Fly"),
        ("{%- if yes -%} a {%- endif %} }} %}", "a }} %}"),
    ],
)
def test_nunjucks_renders_as_it_is_documented(source: str, expected: str) -> None:
    types = {"yes": jinja.Type("boolean"), "dogs": jinja.Type("list"), "room": jinja.Type("object")}
    translated = jinja.translate(source, "nunjucks", types=types)
    assert (translated.fatal, translated.omitted, translated.changed) == ([], [], [])
    assert filled(translated.text, HOUSE) == expected


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("{{ name | custom }}", "filter `custom`"),
        ("{{ name | title }}", "filter `title`"),
        ("{{ f(1) }}", "calls a function"),
        ("{{ name.toUpperCase() }}", "calls a function"),
        ("{{ name === 'x' }}", "`===`"),
        ("{{ 1 + 2 }}", "`+`"),
        ("{{ dogs.length }}", "of JavaScript"),
        ("{{ name is defined }}", "tests"),
    ],
)
def test_an_expression_that_is_not_shared_is_left_out(source: str, why: str) -> None:
    translated = jinja.translate(f"\n{source}", "nunjucks")
    assert [line for line, _ in translated.omitted] == [2]
    assert why in translated.omitted[0][1]
    assert filled(translated.text, {}) == "\n"


@pytest.mark.parametrize(
    "source",
    [
        *("{% set a = 1 %}", "{% include 'x' %}", "{% macro m() %}{% endmacro %}", "{% for k, v in o %}{% endfor %}"),
        *("{% if f(1) %}{% endif %}", "{% if a %}", "{{ a", "{# a", "{% raw %}", "{% extends 'x' %}"),
    ],
)
def test_a_statement_that_is_not_shared_makes_a_template_unusable(source: str) -> None:
    assert jinja.translate(source, "nunjucks").fatal


def test_an_object_or_dump_reads_a_little_different_and_says_so() -> None:
    types = {"room": jinja.Type("object")}
    for source in ("{{ room }}", "{{ room | dump }}"):
        translated = jinja.translate(source, "nunjucks", types=types)
        assert len(translated.changed) == 1
        assert filled(translated.text, {"room": {"a": 1}}) == '{"a": 1}'


@pytest.mark.parametrize(
    ("source", "values", "expected"),
    [
        ("{{ a | title }}{% set b = 1 + 2 %}{{ b }}", {"a": "x y"}, "X Y3"),
        ("{% for k, v in o.items() %}{{ k }}{{ v }}{% endfor %}", {"o": {"a": 1}}, "a1"),
        ("{% if a is defined %}y{% else %}n{% endif %}", {"a": ""}, "n"),
        ("{% if a is not defined %}y{% else %}n{% endif %}", {"a": "x"}, "n"),
        ("{% if l is defined %}y{% else %}n{% endif %}", {"l": []}, "n"),
        ("{% if a is undefined %}y{% endif %}{{ 'd' if a is defined }}", {"a": ""}, "y"),
        ("{{ a.b.c }}{{ range(2) | join }}", {"a": {}}, "01"),
    ],
)
def test_jinja2_renders_as_it_is_documented(source: str, values: dict[str, Any], expected: str) -> None:
    translated = jinja.translate(source, "jinja2", types={"l": jinja.Type("list")})
    assert (translated.fatal, translated.omitted) == ([], [])
    assert filled(translated.text, values) == expected


def test_what_a_template_uses_is_found() -> None:
    found = jinja.translate(
        "{{ a }}{{ b.c }}{% for d in e %}{{ d }}{% endfor %}{% for g in h.i %}{% endfor %}", "jinja2"
    )
    assert (found.variables, found.iterated, found.opened) == ({"a", "b", "e", "h"}, {"e"}, {"b", "h"})


@pytest.mark.parametrize(
    "piece", ["{{", "{%", "{#", '{{ "a', "{{#if", "{{!--", '{{"a""', "{{ a }}", "{{#if a}}{{/if}}", "\\{{"]
)
def test_hostile_templates_take_linear_time(piece: str) -> None:
    """Each would take minutes if a search went back to where it came from."""
    source = piece * (400_000 // len(piece))
    begin = time.perf_counter()
    jinja.translate(source, "nunjucks")
    with suppress(InvalidFile):
        bars(source)
    assert time.perf_counter() - begin < 20


def test_filling_in_gives_a_sentence_when_it_can_not() -> None:
    fill = jinja.filler("nunjucks")
    assert fill("{{ a }} {{ gone }} {{ b }}", {"a": "x", "b": True}) == "x  true"
    with pytest.raises(ValueError, match="filter `custom`"):
        fill("{{ a | custom }}", {})
