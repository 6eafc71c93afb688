"""Images as values: what is accepted, what is sent, and that no text can pass for one."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.core.artifact import Artifact, Input, Message
from tidegate.core.errors import InvalidRequest
from tidegate.prompts.images import MAX_DATA_CHARS, MAX_TOTAL_CHARS, describe, image_complaint, without_data
from tidegate.prompts.render import render

BODIES = {
    "png": b"\x89PNG\r\n\x1a\n....",
    "jpeg": b"\xff\xd8\xff\xe0....",
    "webp": b"RIFF\x01\x02\n\x04WEBPVP8 ",
    "gif": b"GIF89a....",
}


def data(kind: str, body: bytes | None = None) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(BODIES[kind] if body is None else body).decode()}"


URL = "https://shop.example/photo.jpg?size=large"


def show(content: str, variables: dict[str, Any], role: Any = "user") -> Any:
    inputs = {name: Input("image" if name.startswith("photo") else "string") for name in variables}
    return render(Artifact((Message(role, content),), "a/b", inputs=inputs), variables)[0]["content"]


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


@pytest.mark.parametrize("value", [URL, "https://[::1]:8443/x.png", *(data(kind) for kind in BODIES)])
def test_images_are_addresses_or_data(value: str) -> None:
    assert image_complaint(value) is None
    assert show("{{ photo }}", {"photo": value}) == [image(value)]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (5, "must be a string, not a number."),
        ("", "must be an https:// address, or a data: URI of image/png, jpeg, webp or gif in base64."),
        ("http://shop.example/photo.jpg", "must be an https:// address"),
        ("file:///etc/passwd", "must be an https:// address"),
        ("javascript:alert(1)", "must be an https:// address"),
        ("https://", "is not a valid https:// address."),
        ("https://shop.example/a b.png", "is not a valid https:// address."),
        ("https://shop.example/\nx", "is not a valid https:// address."),
        ("https://shop.example:99999/x", "is not a valid https:// address."),
        ("https://[::1/x", "is not a valid https:// address."),
        ("https://shop.example/" + "x" * 9_000, "is an address of 9,021 characters"),
        ("https://me:secret@shop.example/x.png", "must not hold a user name or a password."),
        ("data:image/svg+xml;base64,PHN2Zz4=", "must be an https:// address"),
        ("data:text/html;base64,PHA+", "must be an https:// address"),
        ("data:image/png,abc", "must be an https:// address"),
        ("data:image/png;base64,", "does not begin as a png image does."),
        (data("png", BODIES["gif"]), "does not begin as a png image does."),
        ("data:image/png;base64,iVBO Rw0K", "is not valid base64"),
        ("data:image/png;base64,iVBORw0KGg", "is not valid base64"),
        ("data:image/png;base64,é", "is not valid base64"),
        ("data:image/png;base64," + "A" * MAX_DATA_CHARS, "is 8,388,630 characters of data: URI; at most 8,388,608"),
    ],
)
def test_everything_else_is_refused(value: Any, message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        show("{{ photo }}", {"photo": value})
    assert caught.value.param == "variables.photo"
    assert str(caught.value).startswith(f"variables.photo: {message}")


def test_text_and_images_keep_their_order() -> None:
    value = data("png")
    assert show("A {{ photo }}\n{{ photo2 }} {{ text }}", {"photo": URL, "photo2": value, "text": "B"}) == [
        {"type": "text", "text": "A "},
        image(URL),
        image(value),
        {"type": "text", "text": " B"},
    ]


def test_a_message_without_an_image_stays_text() -> None:
    assert show("{% if photo %}{{ text }}{% endif %}", {"photo": URL, "text": "x"}) == "x"


def test_an_image_that_may_be_left_out() -> None:
    artifact = Artifact(
        (Message("user", "{% if photo %}{{ photo }}{% else %}none{% endif %}{{ photo }}"),),
        "a/b",
        inputs={"photo": Input("image", required=False)},
    )
    assert render(artifact, {})[0]["content"] == "none"
    assert render(artifact, {"photo": None})[0]["content"] == "none"
    assert render(artifact, {"photo": URL})[0]["content"] == [image(URL), image(URL)]


@pytest.mark.parametrize("text", ["[image 0]", "[image 00000000000000000000000000000000 0]", URL, data("png"), "\0"])
def test_text_never_becomes_an_image(text: str) -> None:
    content = show("{{ text }}|{{ photo }}", {"text": text, "photo": URL})
    assert content == [{"type": "text", "text": f"{text}|"}, image(URL)]


@given(st.text())
def test_no_text_becomes_an_image(text: str) -> None:
    assert show("|{{ text }}{{ photo }}", {"text": text, "photo": URL}) == [
        {"type": "text", "text": f"|{text}"},
        image(URL),
    ]


def test_an_image_that_a_template_has_changed_is_refused() -> None:
    """Checked when a prompt is read, too; this is for what was stored unchecked."""
    with pytest.raises(InvalidRequest, match="can only be shown whole"):
        show("{{ photo|upper }}", {"photo": URL})


@pytest.mark.parametrize("role", ["system", "developer", "assistant"])
def test_an_image_stands_in_user_messages_only(role: str) -> None:
    with pytest.raises(InvalidRequest, match=f"can not stand in the {role} message"):
        show("{{ photo }}", {"photo": URL}, role)


def test_a_loop_can_not_multiply_an_image_without_bound() -> None:
    value = data("png", BODIES["png"] + b"\0" * (3 << 20))
    times = MAX_TOTAL_CHARS // len(value)
    assert len(show("{% for i in range(" + str(times) + ") %}{{ photo }}{% endfor %}", {"photo": value})) == times
    with pytest.raises(InvalidRequest, match="the images shown are longer than"):
        show("{% for i in range(" + str(times + 1) + ") %}{{ photo }}{% endfor %}", {"photo": value})


def test_records_and_people_get_an_images_size() -> None:
    value = data("png", BODIES["png"] + b"\0" * 100)
    assert describe(value) == "[image/png, 112 bytes]"
    assert describe(URL) == f"[image {URL}]"
    assert without_data(f'["{value}", "{URL}"]') == f'["data:image/png;base64,[152 characters left out]", "{URL}"]'
