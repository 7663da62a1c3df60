"""Surgery: replace the downsampling of a trained network and keep its outputs."""

from models.surgery.layers import Where
from models.surgery.replace import repeat_surgery, replace_downsampling
from models.surgery.report import LayerReport, SurgeryReport

__all__ = ["LayerReport", "SurgeryReport", "Where", "repeat_surgery", "replace_downsampling"]
