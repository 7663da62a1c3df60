"""Export a detector or a classifier for other runtimes, and check that it still gives the same numbers.

python export.py                                                        # newest best.pt to best.onnx
python export.py --weights best.pt --include onnx openvino ncnn
python export.py --weights best.pt --imgsz 640 --dynamic                # any batch, height and width
python export.py --weights best.pt --int8 --data data/treecrowns.yaml   # 8 bits, and what they cost in AP
"""

from engine.export.command import main
from engine.export.config import ExportConfig
from utils.cli import run

if __name__ == "__main__":
    run(ExportConfig, main)
