"""What other packages would send to their makers, turned off before they are imported: all of it here.

Importing ONNX Runtime looks up its maker's host, importing OpenVINO an analytics host, and both write
identifiers below the home folder. A variable that the user has set stays as it is.
"""

from __future__ import annotations

import os
import sys
from types import ModuleType

ENVIRONMENT = {
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime
    "GRADIO_ANALYTICS_ENABLED": "False",  # nor does it look for a newer version of itself
    "HF_HUB_DISABLE_TELEMETRY": "1",  # a package that Gradio imports
    "WANDB_MODE": "offline",  # the run lies on this disk; `wandb sync` sends it
    "WANDB_ERROR_REPORTING": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    "DO_NOT_TRACK": "1",  # what several packages heed
}
ULTRALYTICS = {"YOLO_OFFLINE": "1", "YOLO_AUTOINSTALL": "0", "YOLO_VERBOSE": "0"}  # set in any case


def keep_offline() -> None:
    """Set the environment; to be called before such a package is imported."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def import_openvino() -> ModuleType:
    """Import OpenVINO without its telemetry, which it then replaces by a stand-in of its own.

    Raises:
        ImportError: it is not installed.
    """
    keep_offline()
    absent = object()
    before = sys.modules.get("openvino_telemetry", absent)
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # as if it were not installed
    try:
        import openvino
    finally:
        if before is absent:
            del sys.modules["openvino_telemetry"]
        else:
            sys.modules["openvino_telemetry"] = before  # type: ignore[assignment]
    return openvino
