"""The `marathon` command: parse, call, print."""

import os
import signal
import sys
from typing import Annotated

import typer

from marathon_pipeline import __version__
from marathon_pipeline.cli.evaluating import evaluate
from marathon_pipeline.cli.judging import audit, review
from marathon_pipeline.cli.looking import show, status, tasks
from marathon_pipeline.cli.releasing import check, diff, export, purge, release
from marathon_pipeline.cli.running import plan, run
from marathon_pipeline.cli.shared import fail, out, stopped
from marathon_pipeline.cli.sources import manifest_check, manifest_import, synth
from marathon_pipeline.cli.training import train
from marathon_pipeline.errors import Failed, UserError, defect

_INTERRUPTED = 130  # what typer makes of a KeyboardInterrupt

app = typer.Typer(
    help="Build long-video instruction datasets of the VideoMarathon kind.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
manifest_app = typer.Typer(help="Work with manifests.", no_args_is_help=True)
app.add_typer(manifest_app, name="manifest")
manifest_app.command("check")(manifest_check)
manifest_app.command("import")(manifest_import)
for command in (
    run,
    plan,
    status,
    show,
    tasks,
    audit,
    review,
    release,
    diff,
    check,
    export,
    purge,
    synth,
    train,
    evaluate,
):
    app.command()(command)


def main() -> None:
    """Run the command. Whatever goes wrong for a user is one line on stderr."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # being told to stop is no crash
    try:
        _main()
    except KeyboardInterrupt:  # a second one, while the first was seen to
        stopped("stopped; run the same command again to go on")


def _main() -> None:
    try:
        sys.exit(app(standalone_mode=False))
    except SystemExit as end:
        if end.code == _INTERRUPTED:
            stopped("stopped; run the same command again to go on")
        raise
    except typer.TyperException as error:  # an unknown option, a missing argument
        fail(f"{' '.join(error.format_message().split())} (`marathon --help` and `marathon COMMAND --help` say more)")
    except UserError as error:
        fail(str(error))
    except Failed as failure:
        mend = "; then run the same command again" if failure.transient else ""
        fail(f"{failure.message or failure.reason}{mend}")
    except Exception as error:
        if os.environ.get("MARATHON_DEBUG"):
            raise
        fail(f"{defect(error)}; MARATHON_DEBUG=1 shows where")


def _version(asked: bool) -> None:
    if asked:
        out.print(f"marathon {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None: ...
