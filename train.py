"""Train a detector or a classifier, on one device or on many.

python train.py                                             # YOLOv5n-SPD on the tree crowns that ship
python train.py --cfg resnet18-spd                          # ResNet18-SPD on the digits that ship
python train.py --data coco.yaml --cfg yolov5s-spd --epochs 300 --batch-size 64
python train.py --resume                                    # continue the newest run
torchrun --nproc-per-node 4 train.py --batch-size 128       # four GPUs, 32 images on each
"""

from engine.training.command import main
from engine.training.config import TrainConfig
from utils.cli import run

if __name__ == "__main__":
    run(TrainConfig, main)
