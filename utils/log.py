"""Logging: one console handler for every command, and the level of what a command returns.

The library logs with `logging.getLogger(__name__)`. Results that the user asked for (tables, summaries) are
logged at level RESULT: they go to standard output, also with --quiet; everything else goes to standard error.
Nothing is set up at import; commands call `setup_logging` once.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass

from utils.options import Options, opt

RESULT = 25  # between INFO and WARNING
NOISY = ("PIL", "onnxscript", "onnx_ir", "torch", "git")  # packages that log what nobody asked


@dataclass(frozen=True)
class LogOptions(Options):
    """Messages."""

    quiet: bool = opt(False, "results and warnings only")
    verbose: bool = opt(False, "every message, and every class in tables")
    debug: bool = opt(False, "show the traceback of an error")


def counted(count: int, what: str) -> str:
    """1, 'file' -> '1 file'; 2, 'file' -> '2 files'; 2, 'bus' -> '2 buses'; 2, 'skis' -> '2 skis'."""
    if count == 1:
        return f"1 {what}"
    hissing = what.endswith(("ss", "us", "x", "ch", "sh")) and not what.endswith("och")  # epochs
    ending = "es" if hissing else "" if what.endswith("s") else "s"
    return f"{count} {what}{ending}"


class ConsoleHandler(logging.Handler):
    """Results to standard output, the rest to standard error, above a progress bar that may be there."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        stream = (
            sys.stdout if record.levelno == RESULT else sys.stderr
        )  # looked up late: both may be replaced
        try:
            text = self.format(record)
            tqdm = sys.modules.get("tqdm")
            if tqdm is not None:
                tqdm.tqdm.write(text, file=stream)
            else:
                stream.write(text + "\n")
            stream.flush()
        except (BrokenPipeError, KeyboardInterrupt):
            raise
        except Exception:
            self.handleError(record)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return f"warning: {text}" if record.levelno == logging.WARNING else text


def setup_logging(options: LogOptions = LogOptions(), rank: int = 0) -> None:
    """Send log records to the console; call again to change options or rank.

    Args:
        options: --quiet and --verbose.
        rank: of this process among those that train together; only rank 0 writes.
    """
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, ConsoleHandler)]:
        root.removeHandler(handler)
    handler = ConsoleHandler()
    handler.setFormatter(_Formatter("%(message)s"))
    handler.addFilter(lambda record: rank == 0)
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if options.verbose else RESULT if options.quiet else logging.INFO)
    logging.addLevelName(RESULT, "RESULT")
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # warns of a home that cannot be written
