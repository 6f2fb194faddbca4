"""Models: opening them, asking them."""

from __future__ import annotations

import ctypes
import logging
import os
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Iterable, Sequence, Union

import numpy as np
import numpy.typing as npt

from . import _abi
from ._engine import Engine, Job, forget_what_log_raised, log_callback, raise_what_log_raised
from ._library import call, choice, library, library_path, to_bytes, to_int, to_path
from ._params import Generation
from .answer import Answer, Answers, answer_from, sharing_from
from .chat import Chat
from .config import ConfigLike
from .errors import FileError
from .image import Image, ImageLike
from .look import Look
from .stream import Stream

if TYPE_CHECKING:
    from ._params import Params, Unpack

#: What :meth:`Model.caption` asks.
CAPTION_PROMPT = "Please help me describe the image in detail."

#: One image, or a list or tuple of images.
Images = Union[ImageLike, Sequence[ImageLike]]

#: Gets level ("debug", "info" or "warning") and message.
LogFunction = Callable[[str, str], None]


@dataclass(frozen=True)
class ModelInfo:
    """What a model is; see ``candid_model_info`` in ``candid.h``."""

    name: str  #: general.name, or ""
    backend: str  #: what computes, e.g. "cpu exact"
    has_vision: bool
    n_layer: int
    n_head: int
    n_head_kv: int
    n_embd: int
    n_vocab: int
    n_ctx_train: int  #: the context window the model was trained for, tokens
    image_size: int  #: pixels, 0 without vision
    image_tokens: int  #: visual tokens per view of an image
    file_bytes: int  #: size of the mapped files
    conversation: str  #: the template that is used where none is given
    n_vision_blocks: int  #: blocks of the image encoder up to the one whose output is used


class Model:
    """An open model.

    Any number of threads may use it at once: calls run in parallel, as each works in a context of its own (KV cache and
    buffers, kept for later calls) on a thread of its own, and the interpreter lock is released meanwhile. With calls
    from many threads, open the model with ``threads=1`` or a few, else they compete for the same cores.

    Ctrl-C during a call cancels it. Close models with ``close()`` or ``with``; one that is not used any more closes
    itself. After ``os.fork`` (``multiprocessing``'s "fork") open models anew.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._finalizer = weakref.finalize(self, engine.close)  # also when the interpreter ends
        self.info: ModelInfo = _info(engine.model)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        mmproj: str | os.PathLike[str] | None = None,
        precision: str = "fast",
        threads: int = 0,
        n_ctx: int = 0,
        log: LogFunction | logging.Logger | None = None,
        device: str = "auto",
    ) -> Model:
        """Opens a GGUF model or a Hugging Face directory. Files are memory-mapped and must not change meanwhile.

        Parameters
        ----------
        path : path
            A GGUF file or a directory with safetensors weights.
        mmproj : path, optional
            Image encoder and projector, where the model does not hold them.
        precision : "fast" or "exact"
            Kernels chosen for the processor, or plain f32 arithmetic.
        threads : int
            Threads that one call computes with; 0: all cores this process may use.
        n_ctx : int
            Tokens of a context; 0: what the model was trained for.
        log : callable or logging.Logger, optional
            Gets ``(level, message)``, on the thread of the call. What it raises is raised by the call.
        device : str
            "auto", "cpu", "cuda" or "cuda:1"; see ``candid_model_params.device``.

        Raises
        ------
        FileError, FormatError, UnsupportedError
            The file is missing, damaged, or of a kind this build cannot run.
        ArgumentError
            A parameter is out of range.
        """
        params = _abi.defaults(_abi.candid_model_params)
        params.precision = choice(_abi.PRECISIONS, precision, "precision")
        params.n_threads = to_int(threads, "threads", 0, 4096)
        params.device = to_bytes(device, "device")
        n_ctx = to_int(n_ctx, "n_ctx", 0, 2**31 - 1)
        if mmproj is not None:
            params.mmproj_path = to_path(mmproj, "mmproj")
        callback = None
        if log is not None:
            callback = log_callback(_to_logger(log) if isinstance(log, logging.Logger) else log)
            params.log = callback
        handle = ctypes.c_void_p()
        forget_what_log_raised()
        call("candid_model_open", to_path(path, "path"), ctypes.byref(params), ctypes.byref(handle))
        model = cls(Engine(handle, n_ctx, callback))
        raise_what_log_raised()
        return model

    @classmethod
    def demo(cls, **options: Any) -> Model:
        """Opens the demo model, a toy that knows emoji scenes only. `options` are those of :meth:`open`."""
        package = Path(__file__).resolve().parent
        places = [
            package / "candid-demo.gguf",  # installed with the package
            package.parent.parent.parent / "models" / "demo" / "candid-demo.gguf",  # in candid's source tree
            library_path().parent.parent / "share" / "candid" / "models" / "demo" / "candid-demo.gguf",
        ]
        for place in places:
            if place.exists():
                return cls.open(place, **options)
        raise FileError(2, f"the demo model is at none of {', '.join(map(str, places))}")

    def close(self) -> None:
        """Cancels the calls that run, which then raise :class:`CancelledError`, and frees the model. Again: nothing."""
        self._finalizer()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<candid.Model {self.info.name!r}, {self.info.backend}>"

    # ---- answers -----------------------------------------------------------------------------------

    def caption(self, image: ImageLike, config: ConfigLike | None = None, **params: Unpack[Params]) -> Answer:
        """Describes an image: :meth:`ask` with :data:`CAPTION_PROMPT`."""
        return self.ask(image, CAPTION_PROMPT, config, **params)

    def ask(
        self, images: Images, question: str, config: ConfigLike | None = None, **params: Unpack[Params]
    ) -> Answer:
        """Answers a question about an image, several (a list or tuple) or none (``[]``).

        Parameters
        ----------
        images : ImageLike or sequence of ImageLike
            Each is placed where the question or the conversation template says ``<image>``, else in front.
        question : str
            The request.
        config : ConfigLike, optional
            Mitigation methods and search.
        **params
            Of the generation, see :class:`Params`.

        Returns
        -------
        Answer

        Raises
        ------
        ContextLengthError
            Prompt and ``max_new_tokens`` do not fit in the context window.
        ArgumentError, FileError, FormatError
            A parameter, an image or the configuration is wrong.
        CancelledError
            The model was closed meanwhile.
        """
        return self._engine.run(_generation(_images(images), question, Generation(config, **params)))

    def stream(
        self, images: Images, question: str, config: ConfigLike | None = None, **params: Unpack[Params]
    ) -> Stream:
        """The answer of :meth:`ask` piece by piece: a :class:`Stream` of texts, with the answer as its ``result``."""
        return self._stream(_images(images), question, config, params)

    def _stream(self, images: Any, question: str, config: Any, params: Any, finished: Any = None) -> Stream:
        generation = Generation(config, **params)

        def start(on_text: Any) -> Callable[[ctypes.c_void_p, Job[Answer]], Answer]:
            generation.struct.on_text = on_text
            return _generation(images, question, generation)

        return Stream(self._engine, start, finished)

    def ask_many(
        self,
        requests: Iterable[tuple[Images, str]],
        config: ConfigLike | None = None,
        **params: Unpack[Params],
    ) -> Answers:
        """Answers many questions at once: ``[(images, question), ...]``.

        An image is encoded once and the beginning of its prompts read once for questions that follow each other about
        the same image (the same file name, or the same object); greedy or sampled answers are decoded side by side.
        With ``precision="exact"`` the answers are those of :meth:`ask`, bit for bit.

        Returns
        -------
        Answers
            A tuple in the order of the questions; its ``sharing`` tells what was done once.
        """
        generation = Generation(config, **params)
        made: dict[Any, Image] = {}
        asked = [([_shared(image, made) for image in _list(images)], question) for images, question in requests]
        rows = (_abi.candid_request * len(asked))()
        for row, (images, question) in zip(rows, asked):
            row.images, row.n_images, row.prompt = _handles(images), len(images), to_bytes(question, "question")

        def run(context: ctypes.c_void_p, job: Job[Answers]) -> Answers:
            job.watch(generation.struct)
            sharing = _abi.candid_sharing(struct_size=ctypes.sizeof(_abi.candid_sharing))
            results = (ctypes.POINTER(_abi.candid_result) * len(asked))()  # `asked` holds the images
            params_at = ctypes.byref(generation.struct)
            call("candid_generate_many", context, rows, len(asked), params_at, ctypes.byref(sharing), results)
            try:
                return Answers([answer_from(result.contents) for result in results], sharing_from(sharing))
            finally:
                for result in results:
                    library().candid_result_free(result)

        return self._engine.run(run)

    def chat(
        self,
        images: Images,
        config: ConfigLike | None = None,
        between: str | None = None,
        **params: Unpack[Params],
    ) -> Chat:
        """Begins a conversation about images.

        Parameters
        ----------
        images, config, **params
            Of every turn, as in :meth:`ask`.
        between : str, optional
            The text from one request to the next with ``{answer}`` in it, for templates of one's own.

        Raises
        ------
        ArgumentError
            The template does not tell how a second turn begins.
        """
        Generation(config, **params)  # what is wrong with them is known now
        return Chat(self, _images(images), config, between, params)

    # ---- looking inside ----------------------------------------------------------------------------

    def encode_image(
        self, image: ImageLike, preprocess: str = "auto", features: str = "projected"
    ) -> npt.NDArray[np.float32]:
        """Vectors of an image.

        Parameters
        ----------
        image : ImageLike
        preprocess : "auto", "pad", "crop" or "anyres"
        features : "projected" or "encoder"
            Visual tokens as they stand in the prompt, behind the projector; or what the image encoder says of each
            patch before it (LLaVA-NeXT: view after view), without the class token.

        Returns
        -------
        ndarray, (n_tokens, n_embd), float32
            n_embd is the language model's width, or the image encoder's.

        Raises
        ------
        UnsupportedError
            The model has no image encoder.
        """
        loaded = Image(image)
        generation = Generation(preprocess=preprocess)
        which = choice(_abi.FEATURES, features, "features")

        def run(context: ctypes.c_void_p, job: Job[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
            job.watch(generation.struct)
            rows, columns = ctypes.c_int(), ctypes.c_int()
            out = np.empty(0, np.float32)
            for _ in range(2):  # the first call tells the shape
                call(
                    "candid_encode_image", context, loaded._handle, which, ctypes.byref(generation.struct),
                    out.ctypes.data, out.size, ctypes.byref(rows), ctypes.byref(columns),
                )  # fmt: skip
                if out.size == 0:
                    out = np.empty((rows.value, columns.value), np.float32)
            return out

        return self._engine.run(run)

    def look(
        self,
        image: ImageLike,
        question: str = CAPTION_PROMPT,
        config: ConfigLike | None = None,
        answer: Answer | None = None,
        **params: Unpack[Params],
    ) -> Look:
        """Answers a question about one image, and tells where each token of the answer looked.

        The answer is given as by :meth:`ask`, then read once more to note the attention; an ``answer`` that is at hand
        is only read. Methods of the configuration act both times, but for contrasts and searches, which have nothing to
        choose when the answer is known. ViCrop and CARVE, which look twice, are refused.

        Returns
        -------
        Look
            ``layers`` (n_tokens, n_layer, grid_h, grid_w), ``maps``, ``overlay()``.
        """
        loaded = Image(image)
        generation = Generation(config, **params)
        if answer is None:
            answer = self._engine.run(_generation([loaded], question, generation))
        tokens = np.ascontiguousarray(answer.tokens, np.int32)
        handles, prompt = _handles([loaded]), to_bytes(question, "question")

        def run(context: ctypes.c_void_p, job: Job[Look]) -> Look:
            job.watch(generation.struct)
            attention = ctypes.POINTER(_abi.candid_attention)()
            call(
                "candid_attention_of", context, handles, 1, 0, prompt, ctypes.byref(generation.struct),
                tokens.ctypes.data, tokens.size, ctypes.byref(attention),
            )  # fmt: skip
            try:
                return Look(self, loaded, answer, attention.contents, generation)
            finally:
                library().candid_attention_free(attention)

        return self._engine.run(run)

    def _overlay(self, image: Image, values: Any, brightest: float, params: Any, out: ctypes.c_void_p) -> None:
        def run(_context: ctypes.c_void_p, _job: Job[None]) -> None:  # there the model stays open meanwhile
            call(
                "candid_image_overlay", self._engine.model, image._handle, values.ctypes.data, brightest,
                ctypes.byref(params), ctypes.byref(out),
            )  # fmt: skip

        self._engine.run(run)


def _generation(
    images: Sequence[Image], question: str, generation: Generation
) -> Callable[[ctypes.c_void_p, Job[Answer]], Answer]:
    """candid_generate as a job."""
    handles, prompt = _handles(images), to_bytes(question, "question")

    def run(context: ctypes.c_void_p, job: Job[Answer]) -> Answer:
        job.watch(generation.struct)
        result = ctypes.POINTER(_abi.candid_result)()
        params = ctypes.byref(generation.struct)
        call("candid_generate", context, handles, len(images), prompt, params, ctypes.byref(result))
        try:
            return answer_from(result.contents)
        finally:
            library().candid_result_free(result)

    return run


def _list(images: Images) -> Sequence[ImageLike]:
    return images if isinstance(images, (list, tuple)) else [images]  # type: ignore[list-item]


def _images(images: Images) -> list[Image]:
    return [Image(image) for image in _list(images)]


def _shared(image: ImageLike, made: dict[Any, Any]) -> Image:
    """The image, made once for each file name or object."""
    key = os.fspath(image) if isinstance(image, (str, os.PathLike)) else id(image)
    if key not in made:
        made[key] = (Image(image), image)  # held, so that no other object gets its id
    shared: Image = made[key][0]
    return shared


def _handles(images: Sequence[Image]) -> Any:
    return (ctypes.c_void_p * len(images))(*[image._handle for image in images])


def _to_logger(logger: logging.Logger) -> LogFunction:
    return lambda level, message: logger.log(getattr(logging, level.upper()), "%s", message)


def _info(model: ctypes.c_void_p) -> ModelInfo:
    info = _abi.candid_model_info(struct_size=ctypes.sizeof(_abi.candid_model_info))
    call("candid_model_get_info", model, ctypes.byref(info))
    values: dict[str, Any] = {}
    for name, *_ in _abi.candid_model_info._fields_[1:]:
        value = getattr(info, name)
        values[name] = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return ModelInfo(**values)
