"""What the server takes at most, and how it says that something is more."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Sizes in bytes and histories, times in seconds."""

    waiting: int = 512  # histories that wait for a row
    seconds: float = 300.0  # from a request to its last answer
    body: int = 4 * 2**20  # bytes of a request
    body_seconds: float = 20.0  # until it is read
    events: int = 5_000  # of a history as it is sent; the model reads the last ones


class Refused(Exception):
    """A request that is not answered: HTTP's status, a sentence, seconds until the client may try again."""

    def __init__(self, status: int, text: str, retry: int = 0) -> None:
        super().__init__(text)
        self.status, self.retry = status, retry
