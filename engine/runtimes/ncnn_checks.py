"""What NCNN's parser takes on trust, checked before it is handed a file.

NCNN allocates what counts and sizes in the text say, and may end the process where they do not fit the
weights, so text and weights are compared here first.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

from utils.errors import UserError, quoted
from utils.limits import INPUT_VALUES, NCNN_BYTES, NCNN_LAYERS, PARAMETERS
from utils.reading import check_regular, read_regular

MAGIC = "7767517"
LONGEST = 255  # characters of a name, which NCNN reads into 256
KINDS = frozenset(  # what pnnx writes for networks; NCNN's other layers are not needed
    {
        "BinaryOp",
        "BatchNorm",
        "Cast",
        "Clip",
        "Concat",
        "Convolution",
        "ConvolutionDepthWise",
        "Convolution1D",
        "Crop",
        "Deconvolution",
        "Dropout",
        "Eltwise",
        "ExpandDims",
        "Flatten",
        "GELU",
        "Gemm",
        "HardSigmoid",
        "HardSwish",
        "InnerProduct",
        "Input",
        "Interp",
        "MatMul",
        "MemoryData",
        "Mish",
        "Noop",
        "PReLU",
        "Padding",
        "Permute",
        "PixelShuffle",
        "Pooling",
        "Reduction",
        "ReLU",
        "Reorg",
        "Reshape",
        "Scale",
        "Sigmoid",
        "Slice",
        "Softmax",
        "Softplus",
        "Split",
        "Squeeze",
        "Swish",
        "TanH",
        "UnaryOp",
    }
)
EXPRESSION = re.compile(r'"(-1|\d[whdc])(,(-1|\d[whdc])){0,3}"')  # a shape: sides of the inputs
SIDES = {"Convolution": (0, 1, 2, 3), "ConvolutionDepthWise": (0, 1, 2, 3, 7), "Pooling": (1, 2)}
ABSENT = {"Convolution": 1, "ConvolutionDepthWise": 1, "Pooling": 1}  # what a side is that is not written


def check_files(file: Path) -> None:
    """Refuse a .param that is no graph of layers known here, or that is larger than the .bin beside it.

    Raises:
        UserError: as above.
    """
    weights = file.with_suffix(".bin")
    size = check_regular(weights, "weights of NCNN")
    try:
        text = read_regular(file, "an NCNN graph", NCNN_BYTES).decode("ascii")
        values = _check_text(text)
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{file}: not an NCNN graph that can be read ({error})") from error
    if values > size:  # in 8 bits, the least, a value is a byte
        raise UserError(f"{weights}: {size:,} bytes, but the graph has {values:,} weights; it is cut short")


def _check_text(text: str) -> int:
    """Return how many weights the graph has.

    Raises:
        ValueError: says what is wrong.
    """
    lines = [line.split() for line in text.splitlines() if line.strip()]
    if len(lines) < 2 or lines[0] != [MAGIC]:
        raise ValueError(f"it does not begin with {MAGIC}")
    layers, blobs = (int(count) for count in lines[1])
    NCNN_LAYERS.check(layers, "the graph")
    if layers != len(lines) - 2:
        raise ValueError(f"it says {layers} layers and has {len(lines) - 2}")
    names: set[str] = set()
    values = 0
    for line in lines[2:]:
        values += _check_layer(line, names)
    if blobs != len(names):
        raise ValueError(f"it says {blobs} blobs and has {len(names)}")
    if not {"in0", "out0"} <= names:
        raise ValueError("its ends are not in0 and out0")
    PARAMETERS.check(values, "the graph")
    return values


def _check_layer(line: list[str], names: set[str]) -> int:
    """Add what a layer returns to `names`; return how many weights it has."""
    if len(line) < 4:
        raise ValueError(f"a layer of {len(line)} words")
    kind, name, bottoms, tops = line[0], line[1], int(line[2]), int(line[3])
    if kind not in KINDS:
        raise ValueError(f"layer {quoted(name)} is of the kind {quoted(kind)}, which is not known here")
    if min(bottoms, tops) < 0 or len(line) < 4 + bottoms + tops or max(map(len, line)) > LONGEST:
        raise ValueError(f"layer {quoted(name)} cannot be read")
    inputs, outputs = line[4 : 4 + bottoms], line[4 + bottoms : 4 + bottoms + tops]
    if not names.issuperset(inputs) or not names.isdisjoint(outputs) or len(set(outputs)) != tops:
        raise ValueError(f"layer {quoted(name)} takes what no layer before it gives, or gives it twice")
    names.update(outputs)
    parameters = dict(_parameter(word) for word in line[4 + bottoms + tops :])
    for key in SIDES.get(kind, ()):
        if parameters.get(key, ABSENT[kind]) < 1:
            raise ValueError(f"layer {quoted(name)}: parameter {key} must be 1 or more")
    return _weights(kind, parameters)


def _parameter(word: str) -> tuple[int, float]:
    """'6=1728' -> (6, 1728.0); of an array, '-23303=2,1,2', the number of its values; 0 of a shape."""
    key, separator, value = word.partition("=")
    number = int(key)
    if EXPRESSION.fullmatch(value):
        return number, 0.0
    numbers = [float(item) for item in value.split(",")]
    if not separator or not all(math.isfinite(n) and abs(n) <= INPUT_VALUES.most for n in numbers):
        raise ValueError(f"{quoted(word)} is no parameter")
    if number > -23300:
        if not 0 <= number < 32 or len(numbers) != 1:
            raise ValueError(f"{quoted(word)} is no parameter")
        return number, numbers[0]
    if not 0 <= -23300 - number < 32 or len(numbers) != 1 + numbers[0]:
        raise ValueError(f"{quoted(word)} is no array")
    return -23300 - number, numbers[0]


def _weights(kind: str, parameters: dict[int, float]) -> int:
    if kind == "MemoryData":
        sides = [parameters.get(key, 0) or 1 for key in (0, 1, 11, 2)]
        values = math.prod(sides)
    elif kind.startswith(("Convolution", "Deconvolution")):
        values = parameters.get(6, 0) + parameters.get(0, 0) * (parameters.get(5, 0) == 1)
    elif kind == "InnerProduct":
        values = parameters.get(2, 0) + parameters.get(0, 0) * (parameters.get(1, 0) == 1)
    elif kind == "Gemm":
        rows, columns, depth = (parameters.get(key, 0) for key in (7, 8, 9))
        values = depth * (rows * (parameters.get(4, 0) == 1) + columns * (parameters.get(5, 0) == 1))
    else:
        values = 0
    if values < 0:
        raise ValueError("a layer has fewer than no weights")
    return int(values)
