"""Answers as they grow."""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING, Any, Callable, Iterator

from . import _abi
from .answer import Answer

if TYPE_CHECKING:
    from ._engine import Engine, Job


class Stream:
    """Pieces of an answer's text, each of whole characters, while the model generates it on another thread.

    Iterate over it; then ``result`` is the :class:`Answer`. The pieces together are the answer's text. The generation
    is stopped by ``close()``, by leaving the loop early (``break``, an exception) and by dropping the stream: the
    answer so far is the ``result``, its ``finish`` "cancelled". What fails on the other thread is raised where the
    stream is read. Beam search, OPERA and several answers come in one piece, at the end.
    """

    def __init__(
        self,
        engine: Engine,
        start: Callable[[Any], Callable[[Any, Job[Answer]], Answer]],
        finished: Callable[[Answer], None] | None = None,
    ) -> None:
        self._pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._state = _State()
        self._finished = finished
        self._over = False
        self._job = _submit(engine, start, self._pieces, self._state)

    def __iter__(self) -> Iterator[str]:
        try:
            while (piece := self._next()) is not None:
                yield piece
        finally:
            self._stop()

    def __next__(self) -> str:
        piece = self._next()
        if piece is None:
            raise StopIteration
        return piece

    def _next(self) -> str | None:
        if self._over:
            return None
        piece = self._pieces.get()
        if piece is None:
            self._over = True
            answer = self._job.value()
            if self._finished is not None and answer.finish != "cancelled":
                self._finished(answer)
        return piece

    @property
    def result(self) -> Answer:
        """The whole answer. Waits for the end; pieces not yet read are lost to the iteration.

        Raises
        ------
        CancelledError
            The stream was closed before the first piece: there is no answer.
        """
        while self._next() is not None:
            pass
        return self._job.value()

    def _stop(self) -> None:
        """Without waiting: the garbage collector may call it on any thread."""
        self._over = True
        self._state.closed = True
        if not self._state.begun:
            self._job.cancel()

    def close(self) -> None:
        """Stops the generation and waits until it has stopped, a token's or a layer's time. Again: nothing."""
        self._stop()
        self._job.done.wait()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_job"):
            self._stop()


class _State:
    begun = False  # a piece was handed over: stopping there keeps the text
    closed = False


def _submit(engine: Engine, start: Any, pieces: queue.SimpleQueue[str | None], state: _State) -> Job[Answer]:
    """Starts the job, which knows the queue and not the stream: a stream nobody holds any more is closed."""

    def on_text(_user_data: Any, text: Any, size: int) -> bool:
        state.begun = True
        pieces.put(text[:size].decode("utf-8", "replace"))
        return not state.closed

    callback = _abi.TEXT_FN(on_text)
    return engine.submit(start(callback), at_end=lambda: pieces.put(None))
