"""Running tasks: threads that take them off the socket themselves and report what came of them.

The thread that is idle reads the socket, so that a task that arrives runs without waking another thread. The
pool looks like distributed's ``ThreadPoolExecutor`` to ``secede`` and ``rejoin``.
"""

from __future__ import annotations

import contextvars
import inspect
import itertools
import logging
import os
import pickle
import sys
import threading
from collections import deque
from time import perf_counter, thread_time, time
from typing import Any

import dask
from dask._task_spec import GraphNode
from dask.context import thread_state
from dask.sizeof import sizeof
from dask.utils import typename

from oxidask.wire import Channel
from oxidask.worker import failure, values
from oxidask.worker.store import Absent, Raw, Store

logger = logging.getLogger("distributed.worker")

OK, ERRED, RESCHEDULE, ABSENT, NEEDS_PRIMARY = 0, 1, 2, 3, 4
"""How a run ended, as the parent knows it."""

_FLUSH_SECONDS = 0.001
"""A report waits this long at most for another, and only while a short task follows."""


def _is_coroutine(node: GraphNode) -> bool:
    """As the node's own ``is_coro``, which imports ``distributed`` to find out."""
    if "distributed" in sys.modules:
        return bool(getattr(node, "is_coro", False))
    function = getattr(node, "func", None)
    return inspect.iscoroutinefunction(function) or bool(getattr(function, "__tornado_coroutine__", False))


class NeedsPrimary(BaseException):
    """A task asks for what only the worker's first executor has: it is run again there.

    No `Exception`, since users' code must not take it for one of its own.
    """


class Unpickling:
    """Held while objects are unpickled: stock does that on one thread, so modules are imported by one at a time.

    Two threads that import modules which import each other can see one half made. Unpickling may also wait for
    another thread (joblib's backend makes a client), so nobody waits for this lock for ever.
    """

    SECONDS = 5.0

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._held = threading.local()

    def __enter__(self) -> None:
        self._held.last = (getattr(self._held, "last", None), self._lock.acquire(timeout=self.SECONDS))

    def __exit__(self, *exc: Any) -> None:
        before, taken = self._held.last
        self._held.last = before
        if taken:
            self._lock.release()


unpickling = Unpickling()


class Task:
    """One run: what the parent sent."""

    __slots__ = ("actor", "annotations", "buffers", "dependencies", "id", "key", "meter", "pickle", "short", "span")

    def __init__(self, fields: tuple[Any, ...], buffers: list[Any]) -> None:
        (self.id, self.key, self.pickle, _, self.dependencies, self.annotations, self.span, self.actor, self.short) = (
            fields
        )
        self.buffers = buffers


class Pool:
    """The threads of the worker. `submit`, `_threads`, `_rejoin_list`, `_rejoin_lock` and
    `_adjust_thread_count` are what distributed's `secede` and `rejoin` use."""

    _counter = itertools.count()

    def __init__(self, runner: Runner, nthreads: int, name: str) -> None:
        self._runner = runner
        self._max_workers = nthreads
        self._name = name
        self._threads: set[threading.Thread] = set()
        self._rejoin_list: list[tuple[threading.Thread, threading.Event]] = []
        self._rejoin_lock = threading.Lock()

    def start(self) -> None:
        while len(self._threads) < self._max_workers:
            self._adjust_thread_count()

    def submit(self, function: Any, *args: Any, **kwargs: Any) -> None:
        """Runs a function in place of a task; its result is dropped."""
        self._runner.interject(lambda: function(*args, **kwargs))

    def _adjust_thread_count(self) -> None:
        if len(self._threads) < self._max_workers:
            name = f"{self._name}-{os.getpid()}-{next(self._counter)}"
            thread = threading.Thread(target=self._work, name=name, daemon=True)
            self._threads.add(thread)
            thread.start()

    def _work(self) -> None:
        runner = self._runner
        proceed = runner.thread_locals(self)
        while proceed():
            if self._rejoin_list and self._give_way():
                return
            work = runner.next()
            if work is None:
                return
            if type(work) is Task:
                runner.run(work)
            else:
                try:
                    work()
                except Exception:
                    logger.exception("Exception in worker thread")
            del work

    def _give_way(self) -> bool:
        with self._rejoin_lock:
            if not self._rejoin_list:
                return False
            thread, event = self._rejoin_list.pop()
            self._threads.add(thread)
            self._threads.discard(threading.current_thread())
            event.set()
            return True


class Runner:
    """Takes tasks off the socket, runs them and reports. One for all threads."""

    def __init__(self, channel: Channel, store: Store, parent: int) -> None:
        self._channel = channel
        self._store = store
        self._proc = f"/proc/{parent}/fd/"
        self._queue: deque[Any] = deque()
        self._leader = threading.Lock()
        self._closed = False
        self._reports: list[tuple[Any, ...]] = []
        self._first_report = 0.0
        self._report_lock = threading.Lock()
        self._types: dict[type, tuple[str, bytes]] = {}
        self._pool_state = threading.local()
        self._stock_state: Any = None
        self.context = contextvars.Context()
        self.execution_state: dict[str, Any] = {}
        self.active: dict[int, Any] = {}
        """Key that each thread runs now, by thread id."""
        self.tasks: dict[int, Task] = {}
        """The same, as runs."""
        self.facade: Any = None
        self.loop_call: Any = None
        """Runs a coroutine function on the worker's event loop: ``loop_call(function, callback)``."""
        self.meter: Any = None
        self.return_segments: Any = None
        """Tells the parent which of its memory is not used here any more."""

    def thread_locals(self, pool: Pool) -> Any:
        """Makes this thread one of the pool's; gives a test whether it stays."""
        state = self._pool_state
        state.executor = pool
        return lambda: getattr(self._stock_state, "proceed", True)

    def threadpool_imported(self, module: Any) -> None:
        """Lets distributed's `secede` and `rejoin` find our pool in our threads, whoever imported them."""
        pool_state = self._pool_state

        class ThreadState(threading.local):
            def __init__(self) -> None:
                pool = getattr(pool_state, "executor", None)
                if pool is not None:
                    self.executor = pool
                    self.proceed = True

        module.thread_state = self._stock_state = ThreadState()

    # Taking tasks

    def interject(self, function: Any) -> None:
        """Lets an idle thread call `function` before the next task."""
        self._queue.appendleft(function)
        # Whoever reads the socket does not see the queue: the parent is asked to wake it.
        self.wake()

    def wake(self) -> None:
        self._channel.send({"op": "wake"})

    def next(self) -> Any:
        """The next task or function; None when the parent has closed the socket."""
        queue = self._queue
        while True:
            try:
                work = queue.popleft()
            except IndexError:
                pass
            else:
                if self._reports and not (type(work) is Task and work.short):
                    self.flush()
                return work
            if self._reports:
                self.flush()
            if self._store.has_returned():
                self.return_segments()
            with self._leader:
                if queue:
                    continue
                if self._closed:
                    return None
                message = self._channel.read()
                if message is None:
                    self._closed = True
                    return None
                self._take(*message)

    def _take(self, document: dict[str, Any], parts: list[Any]) -> None:
        at = 0
        for fields in document.get("tasks", ()):
            count = fields[3]
            buffers = parts[at : at + count]
            at += count
            for dependency in fields[4]:
                kind = dependency[2]
                if kind == 1:
                    frames = parts[at : at + dependency[4]]
                    at += dependency[4]
                    self._store.put_raw(dependency[1], dependency[0], Raw(dependency[3], frames))
                elif kind == 2:
                    path = dependency[4] if type(dependency[4]) is str else self._proc + str(dependency[4])
                    self._store.put_raw(dependency[1], dependency[0], Raw(dependency[3], None, path, dependency[5]))
                elif kind == 3:
                    count = dependency[4].count(None)
                    frames = parts[at : at + count]
                    at += count
                    self._store.put_leased(dependency[1], dependency[0], *dependency[3:5], frames, self._proc)
            self._queue.append(Task(fields, buffers))

    # Running them

    def run(self, task: Task) -> None:
        """Runs a task in this thread, or on the loop if it is a coroutine, and reports."""
        thread = threading.get_ident()
        start = time()
        absent: list[int] = []
        try:
            with unpickling:
                data = self._dependencies(task, absent)
                if absent:
                    self.report((task.id, ABSENT, absent))
                    return
                node = pickle.loads(task.pickle, buffers=task.buffers)
            task.pickle = task.buffers = None  # type: ignore[assignment]
            if _is_coroutine(node):
                self._run_on_loop(task, node, data)
                return
            self._check_executor(task)
        except BaseException as error:
            self._failed(task, error, start, time(), thread)
            return
        self.active[thread] = task.key
        self.tasks[thread] = task
        thread_state.start_time = start = time()
        thread_state.execution_state = self.execution_state
        thread_state.key = task.key
        context = self.context.copy()
        began, cpu = perf_counter(), thread_time()
        try:
            value = context.run(self._call, task, node, data)
        except (SystemExit, KeyboardInterrupt) as error:
            self._exit(task, error)
            return
        except BaseException as error:
            self._failed(task, error, start, start + perf_counter() - began, thread)
        else:
            stop = start + perf_counter() - began
            self._finished(task, value, start, stop, thread, thread_time() - cpu)
        finally:
            self.active.pop(thread, None)
            self.tasks.pop(thread, None)
            del thread_state.start_time, thread_state.execution_state, thread_state.key

    def _call(self, task: Task, node: GraphNode, data: dict[Any, Any]) -> Any:
        if self.meter is not None:
            with self.meter(task):
                return self._call_in_span(task, node, data)
        return self._call_in_span(task, node, data)

    @staticmethod
    def _call_in_span(task: Task, node: GraphNode, data: dict[Any, Any]) -> Any:
        if "span" in task.annotations:
            with dask.annotate(span=task.annotations["span"]):
                return node(data)
        return node(data)

    def _dependencies(self, task: Task, absent: list[int]) -> dict[Any, Any]:
        data = {}
        for dependency in task.dependencies:
            try:
                data[dependency[0]] = self._store.load(dependency[1])
            except Absent:
                absent.append(dependency[1])
        return data

    def _check_executor(self, task: Task) -> None:
        name = task.annotations.get("executor", "default")
        if name not in ("default", "offload", "actor"):
            raise ValueError(f"Invalid executor {name!r}; expected one of: ['actor', 'default', 'offload']")

    def _run_on_loop(self, task: Task, node: GraphNode, data: dict[Any, Any]) -> None:
        start = time()

        async def run() -> None:
            try:
                value = await node(data)
            except BaseException as error:
                self._failed(task, error, start, time(), threading.get_ident())
            else:
                self._finished(task, value, start, time(), threading.get_ident(), 0.0)
            self.flush()

        self.loop_call(run)

    def _exit(self, task: Task, error: BaseException) -> None:
        """`sys.exit` in a task ends the executor, as it ends a stock worker; the parent blames this task."""
        self.flush()
        code = error.code if isinstance(error, SystemExit) else 1
        logger.error("Task %r called %s", task.key, type(error).__name__)
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)

    def _finished(self, task: Task, value: Any, start: float, stop: float, thread: int, cpu: float) -> None:
        try:
            nbytes = sizeof(value)
        except Exception:
            name = type(value).__name__
            logger.warning("Sizeof calculation for object of type '%s' failed. Defaulting to 1 MB", name)
            nbytes = 1_000_000
        kind = type(value)
        names = self._types.get(kind)
        if names is None:
            names = (typename(kind), values.pickled_type(kind if value is not None else type(None)))
            if len(self._types) < 1000:
                self._types[kind] = names
        # The parent knows the value by the number of the run.
        small = None if task.actor else values.inline(value)
        self._store.put(task.id, task.key, value, actor=task.actor)
        self.report((task.id, OK, int(nbytes), names[0], names[1], start, stop, thread, cpu, small))
        if small is None and not task.actor:
            self._store.seal_later(task.id, value, nbytes)

    def _failed(self, task: Task, error: BaseException, start: float, stop: float, thread: int) -> None:
        if isinstance(error, NeedsPrimary):
            self.report((task.id, NEEDS_PRIMARY))
            return
        if failure.is_reschedule(error):
            self.report((task.id, RESCHEDULE))
            return
        exception, traceback, text, traceback_text = failure.describe(error)
        self.report((task.id, ERRED, exception, traceback, text, traceback_text, start, stop, thread))

    # Reporting

    def report(self, fields: tuple[Any, ...]) -> None:
        """Tells the parent, with the next report if a short task follows at once."""
        with self._report_lock:
            self._reports.append(fields)
            if len(self._reports) == 1:
                self._first_report = perf_counter()
        if not self._queue or perf_counter() - self._first_report > _FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        with self._report_lock:
            reports, self._reports = self._reports, []
        if reports:
            self._channel.send({"op": "done", "runs": reports})
