"""A field-by-field diff as a terminal shows it: messages word by word, everything else as values before and after."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from tidegate.cli.output import diff_text, visible
from tidegate.core.diff import CONTEXT_LINES, ArtifactDiff, Op

_WORD_STYLES: dict[Op, tuple[str, str, str]] = {
    "same": ("", "", ""),
    "del": ("[-", "red strike", "-]"),
    "add": ("{+", "green", "+}"),
}


def changes_text(changes: ArtifactDiff, *, marks: bool) -> Text:
    """The whole diff. `marks`: write `[-gone-]` and `{+new+}`, where there are no colours to tell them apart."""
    parts: list[Text] = []
    for message in changes.messages:
        parts += [Text(f"@@ {message.title} @@", "cyan"), *_changed_lines(message.words, marks)]
    rest = ArtifactDiff((), changes.changes)
    return Text("\n").join([*parts, *([diff_text(rest.lines())] if rest.changes else [])])


def _changed_lines(words: Sequence[tuple[Op, str]], marks: bool) -> list[Text]:
    """The lines of a message that changed, and three around each of them; `⋮` stands for the others."""
    lines, changed = [Text()], [False]
    for op, text in words:
        for index, piece in enumerate(text.split("\n")):
            if index:
                lines.append(Text())
                changed.append(op != "same")
            before, style, after = _WORD_STYLES[op]
            shown = visible(piece)
            lines[-1].append(f"{before}{shown}{after}" if marks and piece else shown, style)
            changed[-1] = changed[-1] or (op != "same")
    near = {
        other
        for index, line in enumerate(changed)
        if line
        for other in range(index - CONTEXT_LINES, index + CONTEXT_LINES + 1)
    }
    shown_lines: list[Text] = []
    for index, line in enumerate(lines):
        if index in near:
            shown_lines.append(line)
        elif not shown_lines or shown_lines[-1].plain != "⋮":
            shown_lines.append(Text("⋮", "dim"))
    return shown_lines
