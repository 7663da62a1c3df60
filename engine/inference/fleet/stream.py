"""Ray Data: from a table of files to the tables of actors, as they come."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.inference.fleet.cluster import Fleet
from engine.inference.fleet.collect import Collector, DetectedFile
from engine.inference.fleet.network import Network
from engine.inference.settings import DetectSettings

if TYPE_CHECKING:
    from engine.runtimes import Predictor

LOG = logging.getLogger(__name__)
BLOCK = 16  # files that a reader takes at a time
RETRIES = 5  # of a reader that was killed, before its files are read one by one
BLOCK_BYTES = 16 * 2**20  # of inputs, about a dozen of 640 px, after which they go on to an actor


@dataclass(frozen=True)
class Work:
    """What the readers and the actors do.

    Attributes:
        read: from a table of `index` and `image` to tables of `tiles.tile_schema`.
        load: makes an actor's predictor.
        settings: how to detect.
        fleet: the actors.
    """

    read: Callable[[Any], Iterator[Any]]
    load: Callable[[], Predictor]
    settings: DetectSettings
    fleet: Fleet


def detected_tables(files: Any, work: Work, block: int, tolerant: bool = False) -> Iterator[Any]:
    """Yield tables of `tiles.detected_schema` for a table of files, in any order, some perhaps twice.

    Args:
        files: `index` and `image`.
        work: what is done.
        block: files that a reader takes at a time.
        tolerant: leave out a block whose reader is killed again and again; else that raises.

    Raises:
        ray.exceptions.RayError: a reader or an actor failed for good.
    """
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = BLOCK_BYTES
    context.max_errored_blocks = -1 if tolerant else 0
    context.raise_original_map_exception = True
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    read: Any = _read  # of more arguments than the annotation of map_batches knows
    warnings.filterwarnings("ignore", "`ray_remote_args", DeprecationWarning)  # the only way to bound retries
    blocks = [files.slice(start, block) for start in range(0, len(files), block)]
    fleet = work.fleet
    tables = (
        ray.data.from_arrow(blocks)
        .map_batches(
            read,
            fn_kwargs={"read": work.read},
            batch_size=block,
            batch_format="pyarrow",
            zero_copy_batch=True,
            num_cpus=1,
            ray_remote_args_fn=_bounded_retries,
        )
        .map_batches(
            Network,
            fn_constructor_args=(work.load, work.settings),
            batch_size=work.settings.batch_size,
            batch_format="pyarrow",
            zero_copy_batch=True,
            compute=ray.data.ActorPoolStrategy(size=fleet.actors),
            num_cpus=1,
            num_gpus=fleet.gpus,
        )
    )
    yield from tables.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)


def _bounded_retries() -> dict[str, Any]:
    return {"max_retries": RETRIES}


def _read(batch: Any, read: Callable[[Any], Iterator[Any]]) -> Iterator[Any]:
    """Ray Data takes functions and classes, not objects that are called."""
    yield from read(batch)


def detected_files(files: Any, work: Work, block: int = BLOCK) -> Iterator[DetectedFile]:
    """Yield every file of a table once, in any order; those that their readers do not survive are broken.

    Ray tries a reader or an actor that was killed again a few times. After that the files that are left are
    read one by one, so that only the one that kills its reader is lost.

    Args:
        files: `index` and `image`.
        work: what is done.
        block: files that a reader takes at a time, at most.

    Raises:
        ray.exceptions.RayError: a program has an error, or actors cannot run.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    from ray.exceptions import RayError, RayTaskError

    names = dict(zip(files["index"].to_pylist(), files["image"].to_pylist(), strict=True))
    block = max(min(block, len(files) // (4 * work.fleet.actors)), 1)
    for attempt in range(2):
        collector = Collector(work.settings)
        try:
            for table in detected_tables(files, work, 1 if attempt else block, tolerant=attempt > 0):
                yield from (file for file in collector.add(table) if names.pop(file.index, None) is not None)
        except RayTaskError:
            raise  # an error in a program, which comes again
        except RayError as error:
            if attempt:
                raise
            LOG.warning("readers are killed again and again; files are read one by one now: %s", _said(error))
        if not names:
            return
        files = files.filter(pc.is_in(files["index"], pa.array(list(names), pa.int64())))
    for index, name in names.items():
        yield DetectedFile(index, [], f"{name}: whatever process reads it is killed")


def _said(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
