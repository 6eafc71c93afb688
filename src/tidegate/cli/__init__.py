"""
The command line: one file per command, each imported only when it is called.

Errors of our own tree become one clear sentence on stderr and their exit code; a bug shows its traceback.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from importlib.metadata import version
from inspect import cleandoc
from io import TextIOWrapper
from keyword import iskeyword

from cyclopts import App, CycloptsError, MissingArgumentError, Parameter, UnusedCliTokensError

from tidegate.core.errors import BadInput, TidegateError

COMMANDS = {
    "demo": "The incident, end to end, with no API key and no network.",
    "init": "A starter project that works, with a workflow that gates pull requests.",
    "serve": "Gateway and console for this project.",
    "lint": "Prompts, evals and tidegate.yaml: every problem with its file and line.",
    "render": "The messages a call would send.",
    "eval": "Run a prompt's suite and store the run.",
    "golden": "Make a recorded call a case of a golden set.",
    "gate": "Compare a prompt with what is live, and say PASS, FAIL or INCONCLUSIVE.",
    "judge": "How far judges agree with people, and whether they may gate.",
    "approve": "Say yes to a version as the second person.",
    "deploy": "Point an environment at a version.",
    "rollback": "Point an environment back at its last good version.",
    "status": "What is live where, and what traffic was served by.",
    "log": "Every move of a prompt: what changed, when, by whom, and why.",
    "diff": "Two versions of a prompt, field by field.",
    "import": "Prompts of promptfoo, Dotprompt or Prompty, as folders of yours.",
    "keys": "Who may call, read and deploy: make keys, list them, revoke them.",
    "budgets": "What calls have cost, and what is left.",
    "purge-cache": "Forget the answers that the gateway gives again.",
    "calls": "The records of calls.",
    "sql": "Read-only SQL over the records.",
}


def build(chosen: str | None = None) -> App:
    """The whole command tree; nothing but the chosen command is imported, and it alone shows its whole help."""
    app = App(
        name="tidegate",
        help_format="plaintext",
        help="Keep LLM-powered systems correct, cheap and fast.",
        version=version("tidegate"),
        default_parameter=Parameter(negative="", show_default=lambda default: default or None),
    )
    for name, summary in COMMANDS.items():
        said = _whole_help(name) if name == chosen else summary
        app.command(f"{_module(name)}:{_function(name)}", name=name, help=said)
    return app


def _module(name: str) -> str:
    """A command named by a keyword stands in a module with one more underscore: Python could not name it otherwise."""
    module = name.replace("-", "_")
    return f"tidegate.cli.{module}_" if iskeyword(name) else f"tidegate.cli.{module}"


def _function(name: str) -> str:
    return name.replace("-", "_") + "_"


def _whole_help(name: str) -> str:
    """A command's docstring down to its parameters; all but examples without line breaks, to wrap to any terminal."""
    command = getattr(import_module(_module(name)), _function(name))
    command.__doc__ = _unbroken(cleandoc(command.__doc__ or ""))  # what stands there of its parameters is read later
    description = command.__doc__.split("\nParameters\n")[0].rstrip()
    return "\n\n".join(
        paragraph if paragraph.startswith("For example:") else " ".join(paragraph.split())
        for paragraph in description.split("\n\n")
    )


def _unbroken(doc: str) -> str:
    """A docstring whose parameters have their text on one line each."""
    lines: list[str] = []
    for line in doc.splitlines():
        if lines and line.startswith("    ") and lines[-1].startswith("    "):
            lines[-1] += f" {line.strip()}"
        else:
            lines.append(line)
    return "\n".join(lines)


def _tell(reason: str) -> None:
    """A reason may quote an answer or a file's name: neither a terminal nor a job on GitHub takes it for a command."""
    from tidegate.cli.output import visible

    shown = visible(reason)
    if os.environ.get("GITHUB_ACTIONS") == "true":
        from tidegate.cli.github import harmless

        shown = harmless(shown)
    print(f"tidegate: {shown}", file=sys.stderr)  # noqa: T201


def _missing(error: CycloptsError, arguments: list[str]) -> str:
    """What to say where a command lacks an argument that is no option; empty for every other error."""
    if not isinstance(error, MissingArgumentError) or error.argument is None or error.argument.name.startswith("-"):
        return ""
    return f"`tidegate {arguments[0]}` needs {error.argument.name}. See `tidegate {arguments[0]} --help`."


def main() -> None:
    """Entry point of the `tidegate` program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that can not show a character still shows the rest
    arguments = sys.argv[1:]
    try:
        # The parser's own exit code is 2, which `gate` uses for INCONCLUSIVE: wrong arguments are bad input, 4.
        build(arguments[0] if arguments else None)(arguments, exit_on_error=False, print_error=False)
    except UnusedCliTokensError as error:
        words = " ".join(error.unused_tokens or ())
        _tell(f"{words!r} is one argument too many. See `tidegate {arguments[0]} --help`.")
        sys.exit(BadInput.exit_code)
    except CycloptsError as error:
        _tell(_missing(error, arguments) or str(error))
        sys.exit(BadInput.exit_code)
    except TidegateError as error:
        _tell(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader has left (`… | head`): nothing more can be said, also not when the interpreter flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
