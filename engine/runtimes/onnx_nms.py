"""NMS as the last part of an ONNX graph: `output0` becomes (B, K, 6) x1, y1, x2, y2, confidence, class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

# decoded: cx, cy, w, h in pixels, objectness, class scores. A box counts for its best class only; the
# operator suppresses class by class. What it keeps is marked in (B, N), so that TopK finds each image's best.
_GRAPH = """
<ir_version: {ir}, opset_import: ["": {opset}]>
nms (float[{batch}, {rows}, {columns}] decoded) => (float[{batch}, K, 6] detections)
<float conf = {{{conf}}}, float iou = {{{iou}}}, int64[1] most = {{{max_det}}},
 int64[1] c0 = {{0}}, int64[1] c1 = {{1}}, int64[1] c2 = {{2}}, int64[1] c3 = {{3}}, int64[1] c4 = {{4}},
 int64[1] c5 = {{5}}, int64[1] last = {{2147483647}}, float two = {{2.0}}, float zero = {{0.0}},
 int64[3] one_one_four = {{1, 1, 4}}>
{{
  center = Slice(decoded, c0, c2, c2)
  size = Slice(decoded, c2, c4, c2)
  objectness = Slice(decoded, c4, c5, c2)
  classes = Slice(decoded, c5, last, c2)
  half = Div(size, two)
  low = Sub(center, half)
  high = Add(center, half)
  boxes = Concat<axis = 2>(low, high)
  scores = Mul(classes, objectness)
  best = ReduceMax<keepdims = 1>(scores, c2)
  label = ArgMax<axis = 2, keepdims = 1>(scores)
  is_best = Equal(scores, best)
  of_best = Where(is_best, scores, zero)
  by_class = Transpose<perm = [0, 2, 1]>(of_best)
  kept = NonMaxSuppression(boxes, by_class, most, iou, conf)
  kept_image = Slice(kept, c0, c1, c1)
  kept_box = Slice(kept, c2, c3, c1)
  place = Concat<axis = 1>(kept_image, kept_box)
  score = Squeeze(best, c2)
  kept_score = GatherND(score, place)
  shape = Shape(score)
  nothing = ConstantOfShape(shape)
  marked = ScatterND(nothing, place, kept_score)
  rows = Slice(shape, c1, c2, c0)
  k = Min(most, rows)
  confidence, index = TopK<axis = 1>(marked, k)
  index3 = Unsqueeze(index, c2)
  index4 = Tile(index3, one_one_four)
  corners = GatherElements<axis = 1>(boxes, index4)
  class_index = GatherElements<axis = 1>(label, index3)
  class_number = Cast<to = 1>(class_index)
  confidence3 = Unsqueeze(confidence, c2)
  table = Concat<axis = 2>(corners, confidence3, class_number)
  is_kept = Greater(confidence3, zero)
  detections = Where(is_kept, table, zero)
}}
"""


@dataclass(frozen=True)
class NmsSettings:
    """As of `utils.nms.non_max_suppression`; they are fixed in the file."""

    conf_thres: float = 0.25
    iou_thres: float = 0.45
    max_det: int = 300


def add_nms(file: Path, target: Path, settings: NmsSettings) -> None:
    """Copy a graph with NMS behind its output `output0`, under the same name.

    Args:
        file: an ONNX file whose only output is (B, N, 5 + classes), opset 18 or later.
        target: where it is written; fewer than `max_det` rows are filled with zeros.
        settings: thresholds.
    """
    import onnx
    from onnx import compose, parser

    proto = onnx.load(str(file))
    properties = {entry.key: entry.value for entry in proto.metadata_props}
    opset = next(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    sides = proto.graph.output[0].type.tensor_type.shape.dim
    batch, rows, columns = (side.dim_value or side.dim_param or f"side{i}" for i, side in enumerate(sides))
    text = _GRAPH.format(
        ir=proto.ir_version,
        opset=opset,
        batch=batch,
        rows=rows if isinstance(rows, int) else "N",
        columns=columns,
        conf=settings.conf_thres,
        iou=settings.iou_thres,
        max_det=settings.max_det,
    )
    tail = compose.add_prefix(parser.parse_model(text), "nms/")
    _rename(proto.graph, "output0", "decoded")
    joined = compose.merge_models(proto, tail, io_map=[("decoded", "nms/decoded")])
    _rename(joined.graph, "nms/detections", "output0")
    del joined.metadata_props[:]
    onnx.helper.set_model_props(joined, properties)
    joined.producer_name = proto.producer_name
    onnx.checker.check_model(joined)
    target.write_bytes(joined.SerializeToString())


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Give a value another name wherever it appears."""
    for node in graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == old:
                    names[i] = new
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.name == old:
            value.name = new
