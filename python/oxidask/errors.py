"""Exceptions of user code, made ready for the client as stock Dask does it."""

from __future__ import annotations

import traceback
from types import TracebackType
from typing import Any

_OWN_FRAMES = ("/oxidask/", "distributed/scheduler", "dask/_task_spec", "concurrent/futures", "tornado/gen.py")
"""Parts of file names whose frames at the top of a traceback say nothing to the user."""


def describe(error: BaseException) -> tuple[dict[str, Any], list[bytes]]:
    """The fields of an error message and its parts: the pickled exception, then the pickled traceback.

    A traceback that cannot be pickled, or is longer than Dask allows, is left out (``traceback: False``).
    Follows distributed's ``error_message``, with the traceback of `error` itself.
    """
    import dask
    import tblib.pickling_support
    from distributed.core import collect_causes
    from distributed.protocol import pickle
    from distributed.utils import truncate_exception

    longest = dask.config.get("distributed.admin.max-error-length")
    causes = collect_causes(error)
    for each in (error, *causes):
        each.__traceback__ = without_own_frames(each.__traceback__)
    tblib.pickling_support.install(error, *causes)
    tb = error.__traceback__
    text = "".join(traceback.format_tb(tb))
    error = truncate_exception(error, longest)
    try:
        exception = pickle.dumps(error)
        pickle.loads(exception)
    except Exception:
        exception = pickle.dumps(Exception(repr(error)))
    try:
        pickled_tb = pickle.dumps(tb)
        pickle.loads(pickled_tb)
    except Exception:
        pickled_tb = pickle.dumps(text)
    parts = [exception]
    if len(pickled_tb) <= longest:
        parts.append(pickled_tb)
    fields = {"traceback": len(parts) == 2, "exception_text": repr(error), "traceback_text": text}
    return fields, parts


def without_own_frames(tb: TracebackType | None) -> TracebackType | None:
    """The traceback from the first frame that is the user's or a library's."""
    while tb is not None and any(part in tb.tb_frame.f_code.co_filename for part in _OWN_FRAMES):
        tb = tb.tb_next
    return tb
