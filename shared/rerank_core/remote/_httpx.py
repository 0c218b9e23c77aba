"""What the scorers that send by httpx share."""

from __future__ import annotations

import httpx

from rerank_core.remote.response import Failure, Reply

__all__ = ["failure_of", "reply_of"]


def reply_of(response: httpx.Response) -> Reply:
    """Return a response that was read as a reply."""
    return Reply(
        response.status_code, {name.lower(): value for name, value in response.headers.items()}, response.content
    )


def failure_of(error: Exception) -> Failure:
    """Return what an exception of httpx, or of a client on top of it, means; its message stays out."""
    if isinstance(error, httpx.TimeoutException):
        return Failure("timeout", message="no answer in time")
    if isinstance(error, httpx.DecodingError):
        return Failure("invalid", message="the reply's content encoding is broken")
    if isinstance(error, httpx.TransportError):
        return Failure("connection", message=f"no connection, or it broke ({type(error).__name__})")
    return Failure("invalid", message=f"the client raised {type(error).__name__} at {_place(error)}")


def _place(error: Exception) -> str:
    """Return the file and line that raised: enough to look it up, without what the message may quote."""
    traceback = error.__traceback__
    if traceback is None:
        return "an unknown place"
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return f"{traceback.tb_frame.f_code.co_filename.rpartition('/')[2]}:{traceback.tb_lineno}"
