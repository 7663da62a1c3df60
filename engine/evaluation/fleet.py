"""val.py --ray: the predictions of a data set, made by actors of Ray and gathered here."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from data.image_record import ImageRecord
from engine.evaluation.metrics import DetectionColumns
from engine.evaluation.predictions import Predictions
from utils.detections import Detections

if TYPE_CHECKING:
    from data.batch import Request
    from data.letterbox import Interpolation
    from engine.inference.fleet.network import LoadNetwork
    from engine.inference.settings import DetectSettings
    from engine.options import FleetOptions

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class BatchReader:
    """Makes the inputs of a loader's batches; runs in Ray's reader tasks.

    Attributes:
        records: images or tiles.
        requests: of each record, with the shape of its batch.
        imgsz: see `validation_set`.
        stride: see `validation_set`.
        interpolation: see `validation_set`.
    """

    records: Sequence[ImageRecord]
    requests: dict[int, Request]
    imgsz: int
    stride: int
    interpolation: Interpolation

    def __call__(self, batch: Any) -> Iterator[Any]:
        """Yield a table for each record, given as a table of `index`."""
        from data.batch import Sample
        from data.detection.dataset import validation_set
        from engine.inference.fleet.tiles import END, input_columns, place_columns, row_table

        dataset = validation_set(
            self.records, self.imgsz, self.stride, rect=False, interpolation=self.interpolation
        )
        for index in batch["index"].to_pylist():
            sample = dataset[self.requests[index]]
            if not isinstance(sample, Sample):
                yield row_table({"index": index, "frames": 0, "tile": END, "error": str(sample)})
                continue
            pixels = np.ascontiguousarray(sample.image.numpy().transpose(1, 2, 0))  # (h, w, 3) RGB
            width, height = sample.letterbox.width, sample.letterbox.height
            about = {"index": index, "frame": 1, "frames": 1, "tile": 0, "tiles": 1}
            size = {"width": width, "height": height, **place_columns((0, 0, width, height))}
            yield row_table(about | size | input_columns(pixels, sample.letterbox))


@dataclass(frozen=True)
class ImageReader:
    """Decodes full images and cuts them into tiles; runs in Ray's reader tasks.

    Attributes:
        records: of full images.
        settings: how to detect.
        stride: see `fit_tile`.
    """

    records: Sequence[ImageRecord]
    settings: DetectSettings
    stride: int | None

    def __call__(self, batch: Any) -> Iterator[Any]:
        """Yield a table for each tile of images, given as a table of `index`."""
        from data.media.image_files import ImageReadError, read_image
        from data.media.large_image import open_large
        from engine.inference.fleet.tiles import END, row_table, tile_rows

        for index in batch["index"].to_pylist():
            path = self.records[index].path
            try:
                large = open_large(path)
                image = read_image(path) if large is None else large
                for row in tile_rows(image, self.settings, self.stride):
                    yield row_table({"index": index, "frames": 1, **row})
            except ImageReadError as error:
                yield row_table({"index": index, "frames": 0, "tile": END, "error": str(error)})


def predict_on_fleet(
    load: LoadNetwork,
    settings: DetectSettings,
    records: Sequence[ImageRecord],
    order: Sequence[int],
    read: Callable[[Any], Iterator[Any]],
    options: FleetOptions,
    device: str,
) -> Predictions:
    """Detect on every record.

    Args:
        load: makes an actor's predictor.
        settings: how to detect.
        records: images or tiles.
        order: in which they are read.
        read: a reader of them.
        options: the cluster.
        device: of the actors.
    """
    import pyarrow as pa
    from tqdm import tqdm

    from engine.inference.fleet.cluster import joined
    from engine.inference.fleet.stream import Work, detected_files

    names = [str(records[index].path) for index in order]
    table = pa.table({"index": pa.array(order, pa.int64()), "image": names})
    detections: dict[int, Detections] = {}
    start = time.perf_counter()
    with joined(options, device) as fleet:
        LOG.info("%s", fleet)
        work = Work(read, dataclasses.replace(load, device=fleet.device), settings, fleet)
        files = detected_files(table, work, settings.batch_size)
        for file in tqdm(files, "val", len(names), False, unit="image", dynamic_ncols=True, disable=None):
            if file.error is None:
                detections[file.index] = file.images[0].detections
            else:
                LOG.warning("left out: %s", file.error)
    known = sorted(detections)
    return Predictions(
        [records[index] for index in known],
        DetectionColumns.of_images([detections[index] for index in known]),
        [record for index, record in enumerate(records) if index not in detections],
        {"all stages, on Ray": (time.perf_counter() - start) / max(len(known), 1)},
    )
