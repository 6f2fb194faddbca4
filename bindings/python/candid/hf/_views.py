"""torch tensors as candid_view: pointer, strides and stream of the tensor itself, nothing is copied."""
from __future__ import annotations

import ctypes as C
import warnings
from typing import Callable

import torch

from . import _plugin as abi
from ..errors import UnsupportedError

_DTYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
_Dims = C.c_int64 * 4


def view(tensor: torch.Tensor) -> abi.View:
    """The tensor must live as long as the view."""
    dtype = _DTYPES.get(tensor.dtype)
    if dtype is None:
        raise UnsupportedError(abi.UNSUPPORTED, f"expected a tensor of float32, float16 or bfloat16, found {tensor.dtype}")
    device = tensor.device
    out = abi.View(data=tensor.data_ptr(), dtype=dtype, n_dims=tensor.dim(), shape=_Dims(*tensor.shape),
                   strides=_Dims(*tensor.stride()))
    if device.type == "cuda":
        out.space, out.device = abi.CUDA_MEMORY, device.index or 0
        out.stream = torch.cuda.current_stream(device).cuda_stream
    elif device.type != "cpu":
        raise UnsupportedError(abi.UNSUPPORTED, f"expected tensors on the CPU or a CUDA device, found {device}")
    return out


class Viewer:
    """Shows tensors to the library, which changes them in place.

    Where it cannot reach a CUDA device's memory, a copy on the host is shown and what was changed is copied back, after
    one warning.
    """

    def __init__(self) -> None:
        self.staged = False

    def show(self, use: Callable[..., None], *tensors: torch.Tensor | None, edits: bool = True,
             again: Callable[[], None] | None = None) -> None:
        """use(*views); None stays None.  edits: the first tensor may be changed.  again: what has to be done before
        `use` can be called once more."""
        if not self.staged:
            try:
                return use(*(t if t is None else view(t) for t in tensors))
            except UnsupportedError:
                if all(t is None or t.device.type != "cuda" for t in tensors):
                    raise
                warnings.warn("this libcandid was built without CUDA: tensors it looks at are copied to the host and back",
                              stacklevel=2)
                self.staged = True
                if again:
                    again()
        copies = [t if t is None or t.device.type != "cuda" else t.to("cpu") for t in tensors]
        use(*(t if t is None else view(t) for t in copies))
        if edits and copies[0] is not tensors[0]:
            tensors[0].copy_(copies[0])
