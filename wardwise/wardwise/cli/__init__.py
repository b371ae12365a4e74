"""The command line: one module a group of commands.

What a program may read goes to stdout; progress, notes and errors go to stderr.
Exit codes: 0 done, 1 the plan breaks a rule, 2 wrong usage or bad input, 3 an alarm that
was asked for. An error is one line, and no file is ever left half-written.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from typer.exceptions import TyperException

from wardwise import __version__
from wardwise.cli import (
    day,
    learn,
    pharmacy,
    pharmacy_layout,
    pharmacy_orders,
    pharmacy_robot,
    pharmacy_sim,
    plan,
    sizing,
    twin,
)

if TYPE_CHECKING:
    from collections.abc import Callable

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> NoReturn:
    """Run the command line and leave with its exit code."""
    try:
        code = app(standalone_mode=False) or 0
    except TyperException as problem:
        _fail(f"{problem.format_message().rstrip('.')} (see wardwise --help)")
    except OSError as problem:
        _fail(f"{problem.filename}: {problem.strerror}" if problem.filename else f"{problem}")
    except ValueError as problem:
        _fail(f"{problem}")
    except (KeyboardInterrupt, typer.Abort):
        print("stopped before there was a plan; nothing was written", file=sys.stderr)
        code = 1
    sys.exit(code)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        print(f"wardwise {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Plan a hospital's delivery robots with fewer robots, metres and late deliveries."""


COMMANDS: dict[str, Callable[..., int | None]] = {
    "plan": plan.plan,
    "check": plan.check_command,
    "generate": plan.generate,
    "demo": day.demo,
    "schema": plan.schema,
    "dispatch": day.dispatch,
    "lackner": day.lackner,
    "size": sizing.size_command,
    "simulate": twin.simulate_command,
    "learn": learn.learn_command,
    "sequence": pharmacy.sequence_command,
    "generate-pharmacy": pharmacy.generate_command,
    "layout": pharmacy_layout.layout_command,
    "orders": pharmacy_orders.orders_command,
    "hl7-listen": pharmacy_orders.hl7_listen,
    "pharmacy-sim": pharmacy_sim.simulate_command,
    "wwks2-robot": pharmacy_robot.wwks2_robot,
}
for _name, _function in COMMANDS.items():
    app.command(_name)(_function)


def _fail(message: str) -> NoReturn:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)
