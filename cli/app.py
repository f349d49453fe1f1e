"""The command tree, and the one place where errors become a line and an exit code."""

import errno
import io
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from morphogen.bus.settings import Settings
from morphogen.schemas import MorphogenError, line_of

from .saying import echo

_REFUSING = ("strict", "surrogateescape")  # ways of an encoding with letters that it lacks; the second is of LC_ALL=C

FAILED, WRONG_USE, DIFFERENT, INTERRUPTED = 1, 2, 3, 130

app = typer.Typer(
    name="morphogen",
    help="An event-sourced nervous system for training jobs: record, query in SQL, replay.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@dataclass(frozen=True)
class Chosen:
    """The options that go before the verb."""

    url: str | None = None
    creds: Path | None = None
    home: str | None = None

    def settings(self) -> Settings:
        """Return the settings that these options and the environment make."""
        return Settings.from_environ(url=self.url, creds=self.creds, home=self.home)


def settings_of(context: typer.Context) -> Settings:
    """Return the settings for the verb that runs."""
    chosen = context.find_root().obj
    return (chosen if isinstance(chosen, Chosen) else Chosen()).settings()


def _show_version(asked: bool) -> None:
    if asked:
        echo(f"morphogen {metadata.version('morphogen')}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    url: Annotated[
        str | None,
        typer.Option(help="Broker, nats://host:port, several with commas. Default: MORPHOGEN_URL, else embedded."),
    ] = None,
    creds: Annotated[Path | None, typer.Option(help="Credentials file of a cluster. Default: MORPHOGEN_CREDS.")] = None,
    home: Annotated[str | None, typer.Option(help="Data folder. Default: MORPHOGEN_HOME, else the user's.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what happens inside.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Record training runs, query them in SQL, replay them: an event-sourced nervous system for training jobs."""
    context.obj = Chosen(url, creds, home)
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(message)s" if verbose else "morphogen: %(message)s",
        datefmt="%H:%M:%S",
    )
    if not verbose:
        logging.getLogger("nats").setLevel(logging.CRITICAL)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    from . import verbs  # noqa: F401  registers every verb on `app`

    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors in _REFUSING:
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that has no such letter gets its number
    try:
        code = typer.main.get_command(app).main(list(arguments), prog_name="morphogen", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        _say("interrupted")
        return INTERRUPTED
    except SystemExit as end:
        if not isinstance(end.__context__, BrokenPipeError):
            raise
        return _broken(end.__context__)  # typer meets it first, and says nothing
    except BrokenPipeError as error:
        return _broken(error)
    except MorphogenError as error:
        _debug()
        _say(str(error))
        return FAILED
    except OSError as error:
        _debug()
        _say(_os_line(error))
        return FAILED
    except UnicodeEncodeError as error:
        _debug()
        _say(f"not UTF-8 text: {str(error.object)[:80]!a}; give it in UTF-8")
        return FAILED
    except Exception as error:  # noqa: BLE001  the last line of defence: a person gets a line, never a traceback
        if hasattr(error, "format_message") and hasattr(error, "show"):  # a usage error, whichever click typer brings
            error.show()
            return WRONG_USE
        _debug()
        _say(
            f"unexpected {type(error).__name__}: {line_of(error)} (set MORPHOGEN_DEBUG=1 for the details, and report it)"
        )
        return FAILED
    return code if isinstance(code, int) else 0


def _broken(error: BrokenPipeError) -> int:
    """End as the reader of the output has: it had enough; unless what broke was a pipe that the user named."""
    if error.filename:
        _say(_os_line(error))
        return FAILED
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the exit's own flush does not fail
    return 0


def _debug() -> None:
    if os.environ.get("MORPHOGEN_DEBUG"):
        raise  # noqa: PLE0704  called from an except block, on purpose


def _say(line: str) -> None:
    echo(f"morphogen: {line}", err=True)


def _os_line(error: OSError) -> str:
    where = f": {error.filename}" if error.filename else ""
    advice = {
        errno.ENOSPC: "; free some space and try again",
        errno.EACCES: "; check the permissions",
        errno.EROFS: "; choose another folder",
    }
    return f"{error.strerror or line_of(error)}{where}{advice.get(error.errno or 0, '')}"
