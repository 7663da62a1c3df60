"""Evaluate a detector or a classifier: AP overall, by size and by class, on tiles and on full images.

python val.py                                                # the newest training run, on its own data
python val.py --weights yolov5s-spd.pt --data coco.yaml --save-json
python val.py --weights best.onnx --data mine.yaml --task test --sizes 0,8,16,32,64
python val.py --weights best.pt --tile auto       # full images, just as detect.py --tile does
python val.py --predictions results.json --annotations instances_val2017.json --protocol aitod
"""

from engine.evaluation.command import main
from engine.evaluation.config import ValConfig
from utils.cli import run

if __name__ == "__main__":
    run(ValConfig, main)
