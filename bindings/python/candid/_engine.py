"""Threads that work for a model: every context lives on a thread of its own.

A call takes an idle thread, or starts one where all are busy, and waits for it. The caller's own thread therefore
always waits in Python, where Ctrl-C reaches it: the call is then cancelled, which takes a layer's time, and the
exception goes on. Idle threads stay for the next call and end when the model is closed.
"""

from __future__ import annotations

import ctypes
import os
import queue
import threading
from typing import Any, Callable, Generic, TypeVar

from . import _abi
from ._library import call, library
from .errors import CancelledError, argument_error

T = TypeVar("T")

#: What a log function raised on this thread; raised again when the call that logged is over.
_raised = threading.local()


def log_callback(log: Callable[[str, str], None]) -> Any:
    """A candid_log_fn. An exception must not pass through C: it waits in `_raised`."""

    def forward(_user_data: Any, level: int, message: bytes) -> None:
        try:
            log(_abi.LOG_LEVELS[level], message.decode("utf-8", "replace"))
        except BaseException as e:
            _raised.error = e

    return _abi.LOG_FN(forward)


def forget_what_log_raised() -> None:
    _raised.error = None


def raise_what_log_raised() -> None:
    error = getattr(_raised, "error", None)
    _raised.error = None
    if error is not None:
        raise error


class Job(Generic[T]):
    """One call. `function` gets the context's handle and the job, whose flag cancels what watches it."""

    def __init__(
        self, function: Callable[[ctypes.c_void_p, Job[T]], T], at_end: Callable[[], None] | None = None
    ) -> None:
        self.function = function
        self.at_end = at_end
        self.flag = ctypes.c_int(0)
        self.done = threading.Event()
        self._value: T | None = None
        self._error: BaseException | None = None

    def watch(self, params: _abi.candid_generate_params) -> None:
        """Lets the flag cancel the generation: the library reads it, so no Python runs meanwhile."""
        params.should_cancel = ctypes.cast(library().candid_cancel_when_set, _abi.CANCEL_FN)
        params.should_cancel_user_data = ctypes.addressof(self.flag)

    def cancel(self) -> None:
        self.flag.value = 1

    def run(self, context: Callable[[], ctypes.c_void_p]) -> None:
        try:
            forget_what_log_raised()
            if self.flag.value:
                raise CancelledError(_abi.CANCELLED, "cancelled before it began")
            self._value = self.function(context(), self)
            raise_what_log_raised()
        except BaseException as e:
            self._error = e
        self.function = None  # type: ignore[assignment]  # images and buffers may go
        if self.at_end is not None:
            self.at_end()

    def value(self) -> T:
        """Waits; the function's value, or its exception. Interrupted, it cancels first."""
        try:
            self.done.wait()
        except BaseException:
            self.cancel()
            self.done.wait()
            raise
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]


class Worker(threading.Thread):
    """A thread and its context, which is made for the first job."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(name="candid", daemon=True)
        self.engine = engine
        self.jobs: queue.SimpleQueue[Job[Any] | None] = queue.SimpleQueue()
        self.job: Job[Any] | None = None
        self._context: ctypes.c_void_p | None = None

    def context(self) -> ctypes.c_void_p:
        if self._context is None:
            params = _abi.defaults(_abi.candid_context_params)
            params.n_ctx = self.engine.n_ctx
            made = ctypes.c_void_p()
            call("candid_context_create", self.engine.model, ctypes.byref(params), ctypes.byref(made))
            self._context = made
        return self._context

    def run(self) -> None:
        while (job := self.jobs.get()) is not None:
            job.run(self.context)
            self.engine.finished(self)
            job.done.set()
            del job
        if self._context is not None:
            library().candid_context_free(self._context)
        self.engine.ended(self)


class Engine:
    """The handle of a model and the threads that work with it."""

    def __init__(self, model: ctypes.c_void_p, n_ctx: int, log: Any) -> None:
        self.model = model
        self.n_ctx = n_ctx
        self._log = log  # the library calls it as long as the model lives
        self._lock = threading.RLock()  # the garbage collector may close a model on a thread that holds it
        self._idle: list[Worker] = []
        self._workers: set[Worker] = set()
        self._closed = False
        self._process = os.getpid()

    def check_open(self) -> None:
        if self._closed:
            raise argument_error("the model is closed")
        if os.getpid() != self._process:
            raise argument_error("the model was opened before this process was forked: open it in the new process")

    def submit(
        self, function: Callable[[ctypes.c_void_p, Job[T]], T], at_end: Callable[[], None] | None = None
    ) -> Job[T]:
        """Begins a call; `at_end` is called on its thread when it is over, whatever its end."""
        job = Job(function, at_end)
        with self._lock:
            self.check_open()
            if self._idle:
                worker = self._idle.pop()
            else:
                worker = Worker(self)
                worker.start()
                self._workers.add(worker)
            worker.job = job
            worker.jobs.put(job)
        return job

    def run(self, function: Callable[[ctypes.c_void_p, Job[T]], T]) -> T:
        return self.submit(function).value()

    def finished(self, worker: Worker) -> None:
        with self._lock:
            worker.job = None
            self._idle.append(worker)

    def ended(self, worker: Worker) -> None:
        with self._lock:
            self._workers.discard(worker)
            self._free_if_unused()

    def _free_if_unused(self) -> None:
        if self._closed and not self._workers and self.model:
            library().candid_model_free(self.model)
            self.model = ctypes.c_void_p()

    def close(self) -> None:
        """Cancels what runs, waits for it, frees everything. Again: nothing."""
        if os.getpid() != self._process:  # the threads are the parent's
            return
        with self._lock:
            workers = [] if self._closed else list(self._workers)
            self._closed = True
            for worker in workers:
                if worker.job is not None:
                    worker.job.cancel()
                worker.jobs.put(None)
            self._free_if_unused()
        for worker in workers:
            if worker is not threading.current_thread():
                worker.join()
