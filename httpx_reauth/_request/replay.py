"""Whether a request can be sent again byte for byte.

httpx does not say, and gets it wrong silently: a spent iterator or file goes out as an empty body.
"""

from __future__ import annotations

from typing import IO, Any, cast


def is_replayable(stream: object, byte_stream: type) -> bool:
    """Does `stream`, a request's body, yield the same bytes once more? What is not known to do so does not.

    Bytes do. A multipart form does if each of its files is bytes or can be rewound: httpx rewinds those before it
    sends them, the first time too, and sends what is left of the others.
    """
    if isinstance(stream, byte_stream):
        return True
    fields: Any = getattr(stream, "fields", None)
    if not isinstance(fields, list) or not hasattr(stream, "boundary"):
        return False
    return all(_is_rewindable(getattr(field, "file", b"")) for field in cast("list[object]", fields))


def _is_rewindable(file: object) -> bool:
    if isinstance(file, (str, bytes)):
        return True
    try:
        return not cast("IO[bytes]", file).closed and cast("IO[bytes]", file).seekable()
    except (AttributeError, ValueError, OSError):
        return False
