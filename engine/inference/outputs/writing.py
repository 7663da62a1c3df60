"""From the results of a source's frames to files: outputs are opened late, stopped cleanly, always closed."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, closing
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from engine.inference.outputs.folder import make_output_folder
from engine.inference.outputs.result import FrameResult, Output
from utils.stopping import StopSignals

if TYPE_CHECKING:
    from data.media.sources import Source
    from engine.inference.config import DetectConfig

LOG = logging.getLogger(__name__)
Result = TypeVar("Result", bound=FrameResult)


def write_results(
    cfg: DetectConfig,
    source: Source,
    results: Generator[Result, None, None],
    open_outputs: Callable[[Path | None], Sequence[Output[Result]]],
    log: Callable[[Result], None],
) -> tuple[int, Path | None]:
    """Hand every result to every output; Ctrl-C and SIGTERM end the run after the frame at hand.

    The run folder is made and the outputs are opened with the first result, so that a source that cannot be
    read leaves nothing behind.

    Args:
        cfg: which names the folder.
        source: of the frames; its folder is not written into.
        results: one for each frame, in order; closed at the end.
        open_outputs: makes the outputs; gets the run folder, None where nothing is written.
        log: is called with each result, once it was written.

    Returns:
        The exit code (0, or 130 and 143 after a signal), and the run folder if there is one.

    Raises:
        UserError: a file cannot be written.
    """
    folder = None
    with StopSignals() as stops, ExitStack() as stack:
        stack.enter_context(closing(results))
        coming = stops.until_stopped(results)
        try:
            first = next(coming, None)
            if first is not None:
                folder = make_output_folder(cfg, source) if cfg.saves else None
                outputs = [stack.enter_context(closing(output)) for output in open_outputs(folder)]
                for result in chain([first], coming):
                    for output in outputs:
                        output.add(result)
                    log(result)
        except KeyboardInterrupt:  # q in the window on the screen
            stops.received = signal.SIGINT
    if stops.received:
        LOG.warning("stopped; what was finished is saved")
    return stops.exit_code, folder
