"""Images: whatever holds pixels, as the library takes it."""

from __future__ import annotations

import ctypes
import os
import struct
import zlib
from typing import Any, Union

import numpy as np
import numpy.typing as npt

from ._library import call, library, to_path

#: A file name, an encoded file as bytes, an :class:`Image`, a PIL image, or an array of uint8 pixels: (height, width),
#: (height, width, 1 or 3) or, with an alpha channel that is dropped, (height, width, 4).
ImageLike = Union[str, "os.PathLike[str]", bytes, "Image", npt.ArrayLike]


class Image:
    """An RGB image in the library's memory. It never changes: any number of threads may use it.

    Models take whatever :class:`Image` takes; what is made an ``Image`` first is decoded once.

    Parameters
    ----------
    source : ImageLike
        A file name (JPEG, PNG, BMP, GIF, PNM), the bytes of such a file, an ``Image`` (shared, not copied), a PIL image
        (``convert("RGB")`` is applied) or an array of uint8 pixels.

    Raises
    ------
    FileError, FormatError
        The file is missing, or is no image or a damaged one.
    TypeError, ValueError
        The array's type or shape is none of an image.
    """

    def __init__(self, source: ImageLike) -> None:
        self._handle = ctypes.c_void_p()
        self._shared: Image | None = None  # whose handle it is
        if isinstance(source, Image):
            self._shared = source
            self._handle = source._handle
        elif isinstance(source, (str, os.PathLike)):
            call("candid_image_load", to_path(source, "image"), ctypes.byref(self._handle))
        elif isinstance(source, (bytes, bytearray, memoryview)):
            data = bytes(source)
            call("candid_image_load_memory", data, len(data), None, ctypes.byref(self._handle))
        else:
            self._from_pixels(_pixels(source))

    def _from_pixels(self, rgb: npt.NDArray[np.uint8]) -> None:
        height, width = rgb.shape[:2]
        if max(height, width) >= 2**31:
            raise ValueError(f"image: {width}x{height} pixels are too many")
        call("candid_image_from_rgb", rgb.ctypes.data, width, height, 3 * width, ctypes.byref(self._handle))

    @classmethod
    def _adopt(cls, handle: ctypes.c_void_p) -> Image:
        image = cls.__new__(cls)
        image._handle = handle
        image._shared = None
        return image

    def __del__(self) -> None:
        if getattr(self, "_handle", None) and self._shared is None:
            library().candid_image_free(self._handle)
            self._handle = ctypes.c_void_p()

    @property
    def width(self) -> int:
        return int(library().candid_image_width(self._handle))

    @property
    def height(self) -> int:
        return int(library().candid_image_height(self._handle))

    def numpy(self) -> npt.NDArray[np.uint8]:
        """A copy of the pixels: (height, width, 3) uint8, RGB."""
        pixels = library().candid_image_pixels(self._handle)
        return np.ctypeslib.as_array(pixels, (self.height, self.width, 3)).copy()

    def __array__(self, dtype: Any = None, copy: Any = None) -> npt.NDArray[Any]:
        return self.numpy() if dtype is None else self.numpy().astype(dtype)

    def png(self) -> bytes:
        """The image as a PNG file."""
        rows = self.numpy().reshape(self.height, 3 * self.width)
        filtered = np.concatenate([np.zeros((self.height, 1), np.uint8), rows], axis=1)  # filter 0 before each row
        header = struct.pack(">IIBBBBB", self.width, self.height, 8, 2, 0, 0, 0)  # 8 bits, RGB
        chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(filtered.tobytes(), 6)), (b"IEND", b"")]
        return b"\x89PNG\r\n\x1a\n" + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks
        )

    def _repr_png_(self) -> bytes:
        return self.png()

    def __repr__(self) -> str:
        return f"<candid.Image {self.width}x{self.height}>"


def _pixels(source: Any) -> npt.NDArray[np.uint8]:
    """Contiguous (height, width, 3) pixels of a PIL image or an array."""
    if hasattr(source, "convert") and hasattr(source, "mode"):
        source = source.convert("RGB")
    if not hasattr(source, "__array_interface__") and not hasattr(source, "__array__"):
        raise TypeError(
            "image: expected a file name, bytes, candid.Image, PIL image or array of pixels, "
            f"found {type(source).__name__}"
        )
    array = np.asarray(source)
    if array.dtype != np.uint8:
        raise TypeError(f"image: expected an array of uint8 from 0 to 255, found {array.dtype}")
    if array.ndim == 2:
        array = array[:, :, np.newaxis]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise ValueError(
            "image: expected an array (height, width) or (height, width, 1, 3 or 4 channels) that is not empty, "
            f"found shape {np.shape(source)}"
        )
    array = np.repeat(array, 3, axis=2) if array.shape[2] == 1 else array[:, :, :3]
    return np.ascontiguousarray(array)
