"""A window on the screen."""

from __future__ import annotations

import cv2

from engine.inference.outputs.result import FrameResult


class Display:
    """A window on the screen that shows each frame; any key continues, q ends the run."""

    TITLE = "YOLOv5-SPD"

    def add(self, result: FrameResult) -> None:
        """Show it; an image stays until a key is pressed."""
        cv2.imshow(self.TITLE, result.drawn)
        if cv2.waitKey(1 if result.frame.is_video else 0) & 0xFF in (ord("q"), 27):
            raise KeyboardInterrupt

    def close(self) -> None:
        """Close it."""
        cv2.destroyAllWindows()
