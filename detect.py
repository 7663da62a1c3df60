"""Detect objects in images, videos and streams.

python detect.py                                                  # the newest training run, on a sample
python detect.py --weights best.pt --source photos/ --save-txt --save-conf
python detect.py --weights best.onnx --source street.mp4 --track bytetrack
python detect.py --weights best.pt --source aerial.tif --tile auto    # small objects in a large image
python detect.py --weights best.pt --source rtsp://camera/live 0      # a stream and a webcam
"""

from engine.inference.command import main
from engine.inference.config import DetectConfig
from utils.cli import run

if __name__ == "__main__":
    run(DetectConfig, main)
