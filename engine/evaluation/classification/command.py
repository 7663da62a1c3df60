"""val.py with the weights of a classifier."""

from __future__ import annotations

import logging
from pathlib import Path

from data.classification.dataset_yaml import read_classification_yaml
from data.classification.loader import ClassificationLoader
from data.classification.reading import read_labeled_images
from engine.evaluation.classification.metrics import ClassificationResult, classify
from engine.evaluation.classification.report import report, write_evaluation
from engine.evaluation.config import MANY_CLASSES, ValConfig
from engine.inference.sizes import square_side
from engine.runtimes import Predictor
from utils.errors import UserError
from utils.log import RESULT
from utils.run_folders import make_run_folder

DEFAULT_DATA = Path("data/mnist5k.yaml")

LOG = logging.getLogger(__name__)


def evaluate_classifier(cfg: ValConfig, predictor: Predictor) -> ClassificationResult:
    """Print top-1 and top-5 accuracy, loss and the accuracy of each class, and write the run folder.

    Raises:
        UserError: an option is for detectors only, or data and weights do not fit together.
    """
    weights = " + ".join(map(str, cfg.weights))
    cfg.refuse_other_tasks("classify", weights)
    description = read_classification_yaml(cfg.data or Path(predictor.config.get("data") or DEFAULT_DATA))
    side = square_side(cfg.imgsz, predictor)
    images = read_labeled_images(description, cfg.task, description.transform(side))
    if len(images.names) != len(predictor.names):
        raise UserError(
            f"the weights know {len(predictor.names)} classes ({', '.join(predictor.names[:5])}, ...), but "
            f"{description.file} has {len(images.names)}; choose the --data they were trained on"
        )
    if images.names != tuple(predictor.names):
        LOG.warning(
            "the weights call the classes %s, ..., %s calls them %s, ...",
            ", ".join(predictor.names[:5]),
            description.file,
            ", ".join(images.names[:5]),
        )
    folder = make_run_folder(cfg.run.project, cfg.run.name, cfg.run.exist_ok)
    title = f"{weights} on {description.file} ({cfg.task}) at {side} px"
    LOG.info("%s, into %s", title, folder)
    loader = ClassificationLoader(images, cfg.batch_size)
    result = classify(predictor, loader, images.names, predictor.device)
    LOG.log(RESULT, report(result, cfg.log.verbose or len(images.names) <= MANY_CLASSES))
    used = cfg.replace(data=description.file, imgsz=side)
    used.save(folder / "config.yaml")
    write_evaluation(result, images.pixels, images.where, folder, cfg.plots)
    return result
