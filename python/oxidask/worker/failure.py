"""Exceptions of tasks, made ready for the client as stock Dask does it, without importing ``distributed``."""

from __future__ import annotations

import pickle
import sys
import traceback
from types import TracebackType
from typing import Any

import cloudpickle
import dask.config

_OWN_FRAMES = (
    "/oxidask/",
    "distributed/worker",
    "distributed/scheduler",
    "tornado/gen.py",
    "concurrent/futures",
    "dask/_task_spec",
)
"""Parts of file names whose frames at the top of a traceback say nothing to the user."""

_LONGEST = 10_000
"""Default of ``distributed.admin.max-error-length``. Unit: characters of the text, bytes of a pickled traceback."""

Failure = tuple[bytes, "bytes | None", str, str]
"""Pickled exception, pickled traceback if there is one, and both as text."""


def dumps(value: Any) -> bytes:
    """Pickle as ``distributed.protocol.pickle.dumps``: plain where that works everywhere, else by value."""
    try:
        data = pickle.dumps(value, protocol=5)
    except Exception:
        return cloudpickle.dumps(value, protocol=5)
    if b"__main__" in data:
        return cloudpickle.dumps(value, protocol=5)
    return data


def describe(error: BaseException) -> Failure:
    """What the scheduler is to be told about `error`. Follows distributed's ``error_message``."""
    import tblib.pickling_support

    longest = dask.config.get("distributed.admin.max-error-length", _LONGEST)
    tb = without_own_frames(error.__traceback__)
    error = _of_user(error)
    error.__traceback__ = tb
    tblib.pickling_support.install(error, *_causes(error))
    text = "".join(traceback.format_tb(tb))
    error = _truncated(error, longest)
    try:
        exception = dumps(error)
        pickle.loads(exception)
    except Exception:
        exception = pickle.dumps(Exception(_repr(error)))
    try:
        pickled_tb: bytes | None = dumps(tb)
        pickle.loads(pickled_tb)
    except Exception:
        pickled_tb = pickle.dumps(text)
    if len(pickled_tb) > longest:
        pickled_tb = None
    return exception, pickled_tb, _repr(error), text


def without_own_frames(tb: TracebackType | None) -> TracebackType | None:
    """The traceback from the first frame that is the user's or a library's."""
    while tb is not None and any(part in tb.tb_frame.f_code.co_filename for part in _OWN_FRAMES):
        tb = tb.tb_next
    return tb


def _of_user(error: BaseException) -> BaseException:
    """The error itself, or for one of our own classes, which a client cannot import, one of the class it stands for."""
    kind = type(error)
    if not kind.__module__.startswith("oxidask."):
        return error
    standard = next(base for base in kind.__mro__ if not base.__module__.startswith("oxidask."))
    copy = standard(*error.args)
    copy.__cause__ = error.__cause__
    return copy


def _causes(error: BaseException) -> list[BaseException]:
    causes = []
    while error.__cause__ is not None and error.__cause__ not in causes:
        error = error.__cause__
        causes.append(error)
    return causes


def _repr(error: BaseException) -> str:
    try:
        return repr(error)
    except Exception:
        return f"{type(error).__name__} (its repr fails)"


def _truncated(error: BaseException, longest: int) -> BaseException:
    """The exception with its text cut where it is too long."""
    try:
        text = str(error)
    except Exception:
        return Exception(f"{type(error).__name__} (its text fails)")
    if len(text) <= longest:
        return error
    try:
        shorter = type(error)("Long error message", text[:longest])
        shorter.__traceback__ = error.__traceback__
        return shorter
    except Exception:
        return Exception("Long error message", type(error), text[:longest])


def is_reschedule(error: BaseException) -> bool:
    """True for ``distributed.Reschedule``, which is no error."""
    module = sys.modules.get("distributed.exceptions")
    return module is not None and isinstance(error, module.Reschedule)
