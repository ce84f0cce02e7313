"""Errors a user can cause and mend. Each message names the thing, its value, and the fix."""

import errno
import os


class BuaError(Exception):
    """Base of all errors that verbs print as one paragraph (exit code 2) instead of a traceback."""


class DataError(BuaError):
    """Events, histories or dialogues are malformed; names file, row, column, value, expectation."""


class ConfigError(BuaError):
    """A config field has a value that cannot work."""


class MismatchError(BuaError):
    """Two artefacts do not belong together; names both values and the command that fixes it."""


class CheckpointError(BuaError):
    """A checkpoint or weight file is missing, truncated, altered or of another model."""


class WriteError(DataError):
    """A file could not be written, most often because the disk is full."""


class ClaimedError(BuaError):
    """Another process writes the same step or file; names it."""


class ApiError(BuaError):
    """A host that is asked over HTTP refuses, breaks off or does not answer; `status`: of HTTP, 0 = none."""

    status = 0


class Interrupted(BuaError):
    """A signal asked to stop: what was done is saved, and the same command goes on from there."""

    def __init__(self, by: str, saved: str) -> None:
        super().__init__(f"{by}: {saved}")
        self.exit_code = 130 if by == "SIGINT" else 2


class UndeclaredError(BuaError):
    """A step reads a config field or another step that it did not declare: a fault of the program."""


def first_remedy(error: OSError) -> str:
    """What a message names first where something could not be written: space, or the right to."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"Let user {os.geteuid()} write there"
    return "Free disk space"
