"""Ray Data: from a table of files to the tables of actors, as they come."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.inference.fleet.cluster import Fleet
from engine.inference.fleet.collect import Collector, DetectedFile
from engine.inference.fleet.network import Network
from engine.inference.settings import DetectSettings

if TYPE_CHECKING:
    from engine.runtimes import Predictor

LOG = logging.getLogger(__name__)
BLOCK = 64  # files that a reader takes at a time
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
        network: what an actor is, made of `load` and `settings`.
    """

    read: Callable[[Any], Iterator[Any]]
    load: Callable[[], Predictor]
    settings: DetectSettings
    fleet: Fleet
    network: type = Network


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
            work.network,
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
    from ray.exceptions import RayError, RayTaskError

    pending = _Pending(files)
    block = max(min(block, len(files) // (4 * work.fleet.actors)), 1)
    for attempt in range(2):
        collector = Collector(work.settings)
        try:
            for table in detected_tables(files, work, 1 if attempt else block, tolerant=attempt > 0):
                yield from (file for file in collector.add(table) if pending.take(file.index))
        except RayTaskError:
            raise  # an error in a program, which comes again
        except RayError as error:
            if attempt:
                raise
            LOG.warning("readers are killed again and again; files are read one by one now: %s", _said(error))
        files = pending.files()
        if not len(files):
            return
    for index, name in zip(files["index"].to_pylist(), files["image"].to_pylist(), strict=True):
        yield DetectedFile(index, [], f"{name}: whatever process reads it is killed")


class _Pending:
    """Which files of a table have not come yet; takes a byte for each, not an object."""

    def __init__(self, files: Any):
        self._files = files
        index = files["index"].to_numpy()
        self._order = np.argsort(index)
        self._sorted = index[self._order]
        self._left = np.ones(len(index), bool)

    def take(self, index: int) -> bool:
        """Note that a file has come; False where it had come before."""
        row = self._order[np.searchsorted(self._sorted, index)]
        was_left = bool(self._left[row])
        self._left[row] = False
        return was_left

    def files(self) -> Any:
        """Return the table of those that are left."""
        import pyarrow as pa

        return self._files.filter(pa.array(self._left))


def _said(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
