"""What is checked of a foreign ONNX graph before ONNX Runtime opens it, and a time limit for its loops."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.errors import UserError, quoted
from utils.limits import LOOP_SECONDS

if TYPE_CHECKING:
    import onnx
    import onnxruntime

LOOPS = ("Loop", "Scan", "SequenceMap")


def check_model(file: Path) -> bool:
    """Return whether the graph holds loops.

    Raises:
        UserError: it is no ONNX, or its tensors lie in a file outside its folder.
    """
    import onnx

    try:
        proto = onnx.load_model(str(file), load_external_data=False)
    except Exception as error:  # protobuf's
        raise UserError(f"{file}: ONNX Runtime cannot open it (it is no ONNX graph)") from error
    graphs = [proto.graph, *proto.functions]
    folder, loops = file.resolve().parent, False
    while graphs:
        graph = graphs.pop()
        for tensor in _tensors(graph):
            _check_tensor(tensor, folder, file)
        for node in graph.node:
            loops |= node.op_type in LOOPS
            for attribute in node.attribute:
                graphs += [*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs]
    return loops


def _tensors(graph: Any) -> Iterator[onnx.TensorProto]:
    """Yield the tensors of a graph, or of a function, and those in the attributes of its nodes."""
    yield from getattr(graph, "initializer", ())
    for sparse in getattr(graph, "sparse_initializer", ()):
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)


def _check_tensor(tensor: onnx.TensorProto, folder: Path, file: Path) -> None:
    """Refuse data in a file that is not below the folder, or no regular one."""
    for entry in tensor.external_data:
        if entry.key == "location":
            beside = (folder / entry.value).resolve()
            if Path(entry.value).is_absolute() or not beside.is_relative_to(folder) or not beside.is_file():
                where = quoted(entry.value)
                raise UserError(
                    f"{file}: its tensors lie in {where}, which is no file below its folder; not read"
                )


def run_loops(session: onnxruntime.InferenceSession, output: str, feed: dict[str, Any]) -> list[Any]:
    """Run a graph whose loops may never end: Ctrl-C stops it, and so does a time limit.

    Raises:
        UserError: it took longer; the graph's own errors are passed on.
    """
    import onnxruntime

    options, results, errors = onnxruntime.RunOptions(), [], []

    def work() -> None:
        try:
            results.append(session.run([output], feed, options))
        except Exception as error:  # handed to the thread that waits
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        thread.join(LOOP_SECONDS.most)
        if thread.is_alive():
            raise UserError(LOOP_SECONDS.refusal(LOOP_SECONDS.most + 1, "an ONNX graph with loops"))
    finally:  # also at Ctrl-C
        options.terminate = True
        thread.join(5)
    if errors:
        raise errors[0]
    return results[0]
