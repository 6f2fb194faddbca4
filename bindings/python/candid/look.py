"""Where the tokens of an answer looked."""

from __future__ import annotations

import ctypes
import re
from typing import Any, Sequence, Union

import numpy as np
import numpy.typing as npt

from ._params import Generation
from .answer import Answer
from .errors import argument_error
from .image import Image

#: A token's number, several, a word of the answer, or None for all tokens.
TokenSelection = Union[int, slice, Sequence[int], str, None]
#: A layer's number, several, or None for all layers.
LayerSelection = Union[int, slice, Sequence[int], None]


class Look:
    """Attention of an answer's tokens to the image: what :meth:`Model.look` gives.

    Attributes
    ----------
    image : Image
        The image.
    answer : Answer
        The answer.
    pieces : list of str
        The text of each token; a character of several tokens belongs to the last.
    layers : ndarray, (n_tokens, n_layer, grid_h, grid_w), float32
        Share of the attention of the row that predicts the token that is on each cell of the image, mean over the
        heads, after what the configuration's methods change of it. Cells are the encoder's patches in raster order, of
        LLaVA-NeXT those of the view that shows the whole image.
    """

    def __init__(self, model: Any, image: Image, answer: Answer, attention: Any, generation: Generation) -> None:
        shape = (attention.n_tokens, attention.n_layer, attention.grid_h, attention.grid_w)
        self.image = image
        self.answer = answer
        self.layers: npt.NDArray[np.float32] = np.ctypeslib.as_array(attention.values, shape).copy()
        text, ends = attention.text, [0, *attention.token_end[: attention.n_tokens]]
        self.pieces = _split(text, ends)
        self._model = model
        self._preprocess = generation.struct.preprocess

    @property
    def maps(self) -> npt.NDArray[np.float32]:
        """The mean over the layers: (n_tokens, grid_h, grid_w)."""
        maps: npt.NDArray[np.float32] = self.layers.mean(axis=1)
        return maps

    def find(self, word: str) -> list[int]:
        """The tokens that hold letters of a word's first occurrence in the answer, whatever its case.

        Raises
        ------
        ArgumentError
            The answer does not have the word.
        """
        match = re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text := "".join(self.pieces), re.IGNORECASE)
        if match is None or not word:
            raise argument_error(f"look: expected a word of the answer {text.strip()!r}, found {word!r}")
        ends = np.cumsum([len(piece) for piece in self.pieces])
        first, last = np.searchsorted(ends, [match.start(), match.end() - 1], side="right")
        return list(range(int(first), int(last) + 1))

    def map(self, token: TokenSelection = None, layers: LayerSelection = None) -> npt.NDArray[np.float32]:
        """One map, (grid_h, grid_w): the mean over the chosen tokens and layers.

        Parameters
        ----------
        token : int, slice, sequence of int, str, optional
            Tokens of the answer, or a word of it; of a word's tokens the first counts, which decides for the word.
        layers : int, slice, sequence of int, optional
            Layers.
        """
        tokens: Any = self.find(token)[0] if isinstance(token, str) else slice(None) if token is None else token
        chosen = _several(self.layers, tokens, 0, "token")
        chosen = _several(chosen, slice(None) if layers is None else layers, 1, "layer")
        mean: npt.NDArray[np.float32] = chosen.mean(axis=(0, 1))
        return mean

    def overlay(self, token: TokenSelection = None, layers: LayerSelection = None, brightest: float = 0.0) -> Image:
        """The image, faded, under the heat map of :meth:`map`.

        Parameters
        ----------
        token, layers
            As in :meth:`map`.
        brightest : float
            The attention shown brightest; 0: what 98 in 100 cells do not exceed. Give the same value to pictures that
            are to be compared.

        Returns
        -------
        Image
            Of the original's size: a notebook shows it, ``numpy()`` gives its pixels, ``png()`` a file.
        """
        params = Generation().struct
        params.preprocess = self._preprocess
        values = np.ascontiguousarray(self.map(token, layers), np.float32)
        picture = ctypes.c_void_p()
        self._model._overlay(self.image, values, brightest, params, picture)
        return Image._adopt(picture)

    def _repr_png_(self) -> bytes:
        return self.overlay().png()

    def __repr__(self) -> str:
        return f"<candid.Look at {self.answer.text!r}, layers {self.layers.shape}>"


def _several(values: npt.NDArray[np.float32], index: Any, axis: int, what: str) -> npt.NDArray[np.float32]:
    """`values` with the chosen entries of an axis, which stays."""
    n = values.shape[axis]
    try:
        chosen = np.atleast_1d(np.arange(n)[index])
    except IndexError:
        raise argument_error(f"{what}: expected numbers below {n}, found {index!r}") from None
    if chosen.size == 0:
        raise argument_error(f"{what}: expected one or more of {n}, found none")
    return np.take(values, chosen, axis=axis)


def _split(text: bytes, ends: Sequence[int]) -> list[str]:
    """The text between the ends; bytes of a character that goes on wait for the rest of it."""
    pieces, held = [], b""
    for begin, end in zip(ends, ends[1:]):
        held += text[begin:end]
        try:
            pieces.append(held.decode("utf-8"))
            held = b""
        except UnicodeDecodeError:
            pieces.append("")
    return pieces
