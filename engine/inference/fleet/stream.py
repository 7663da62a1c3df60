"""Ray Data: from a table of files to the tables of actors, as they come."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.inference.fleet.cluster import Fleet
from engine.inference.fleet.network import Network
from engine.inference.settings import DetectSettings

if TYPE_CHECKING:
    from engine.runtimes import Predictor

BLOCK = 16  # files that a reader takes at a time
BLOCK_BYTES = 16 * 2**20  # of inputs, about a dozen of 640 px, after which they go on to an actor
RETRIES = 2  # of a reader that was killed, before its files are read one by one


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


def detected_tables(files: Any, work: Work, block: int = BLOCK, tolerant: bool = False) -> Iterator[Any]:
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
            ray_remote_args_fn=_remote_args,
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


def _remote_args() -> dict[str, Any]:
    return {"max_retries": RETRIES}


def _read(batch: Any, read: Callable[[Any], Iterator[Any]]) -> Iterator[Any]:
    """Ray Data takes functions and classes, not objects that are called."""
    yield from read(batch)
