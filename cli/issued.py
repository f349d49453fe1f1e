"""The id of a command that was issued, told whatever becomes of the output: who tries again issues another one."""

from morphogen.schemas import MorphogenError

from .saying import echo


def echo_issued(command_id: str) -> None:
    """Print the id of a command. Raises MorphogenError, with the id, where standard output cannot be written."""
    try:
        echo(command_id)
    except BrokenPipeError:
        raise  # whoever reads had enough, which is no failure
    except OSError as error:
        raise MorphogenError(
            f"the command was issued: {command_id}; only its id could not be printed: {error.strerror}"
        ) from error
