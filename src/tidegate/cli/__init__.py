"""
The command line: one file per command, each imported only when it is called.

Errors of our own tree become one clear sentence on stderr and their exit code; a bug shows its traceback.
"""

from __future__ import annotations

import sys
from importlib.metadata import version

from cyclopts import App, CycloptsError

from tidegate.core.errors import BadInput, TidegateError

COMMANDS = {
    "demo": "The incident, end to end, with no API key and no network.",
    "serve": "Gateway and console for this project.",
    "render": "The messages a call would send.",
    "eval": "Run a prompt's suite and store the run.",
    "gate": "Compare a prompt with what is live, and say PASS, FAIL or INCONCLUSIVE.",
    "deploy": "Point an environment at a version.",
    "rollback": "Point an environment back at its last good version.",
    "status": "What is live where, and what traffic was served by.",
    "log": "Every move of a prompt: what changed, when, by whom, and why.",
    "diff": "Two versions of a prompt, field by field.",
    "calls": "The records of calls.",
    "sql": "Read-only SQL over the records.",
}


def build() -> App:
    """The whole command tree; nothing is imported until a command is chosen."""
    app = App(
        name="tidegate",
        help_format="plaintext",
        help="Keep LLM-powered systems correct, cheap and fast.",
        version=version("tidegate"),
    )
    for name, help_text in COMMANDS.items():
        app.command(f"tidegate.cli.{name}:{name}_", name=name, help=help_text)
    return app


def main() -> None:
    """Entry point of the `tidegate` program."""
    try:
        # The parser's own exit code is 2, which `gate` uses for INCONCLUSIVE: wrong arguments are bad input, 4.
        build()(sys.argv[1:], exit_on_error=False, print_error=False)
    except CycloptsError as error:
        print(f"tidegate: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(BadInput.exit_code)
    except TidegateError as error:
        print(f"tidegate: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(141)
