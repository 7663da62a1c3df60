"""How strong each augmentation is: the only place where strengths, their ranges and defaults are declared."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from typing_extensions import Self

from utils.validation import Checked

Share = Annotated[float, Field(ge=0, le=1)]


class AugmentationSettings(Checked):
    """Strengths of the training augmentation; the defaults are YOLOv5's low-augmentation recipe.

    Raises:
        UserError: a value is out of range or no number, or a name is unknown.
    """

    hsv_h: Share = Field(0.015, description="hue, largest relative change either way")
    hsv_s: Share = Field(0.7, description="saturation, largest relative change either way")
    hsv_v: Share = Field(0.4, description="brightness, largest relative change either way")
    degrees: float = Field(0.0, ge=0, le=180, description="rotation, degrees either way")
    translate: Share = Field(0.1, description="shift, as a share of the image's side, either way")
    scale: float = Field(0.5, ge=0, le=0.99, description="zoom, relative change either way")
    shear: float = Field(0.0, ge=0, le=40, description="shear, degrees either way")
    perspective: float = Field(
        0.0, ge=0, le=0.001, description="perspective, relative change of depth per pixel, either way"
    )
    flipud: Share = Field(0.0, description="probability of an upside-down flip")
    fliplr: Share = Field(0.5, description="probability of a left-right flip")
    rot90: Share = Field(
        0.0,
        description="probability of one to three quarter turns (for images without an up, such as aerial)",
    )
    mosaic: Share = Field(1.0, description="probability of a mosaic of four images")
    mixup: Share = Field(0.0, description="probability of blending with a second image")
    copy_paste: Share = Field(0.0, description="probability of each small object to be pasted once more")
    crop: Share = Field(
        0.0, description="probability of a full-resolution crop of an image larger than the input"
    )
    tile_jitter: Share = Field(0.0, description="random shift of a tile, as a share of its side")

    @classmethod
    def only(cls, **strengths: float) -> Self:
        """Return settings with everything off but `strengths`; without any it is the plain letterbox."""
        return cls(**dict.fromkeys(AugmentationSettings.model_fields, 0.0) | strengths)

    @property
    def warps(self) -> bool:
        """Whether a single image is more than letterboxed."""
        return any((self.degrees, self.translate, self.scale, self.shear, self.perspective))

    def without_mixing(self) -> Self:
        """Return the same for single images: no mosaic, no blending, nothing pasted."""
        return self.model_copy(update={"mosaic": 0.0, "mixup": 0.0, "copy_paste": 0.0})

    def for_rectangles(self) -> Self:
        """Return the same as far as it suits inputs that are not square: no mosaic, no quarter turns."""
        return self.model_copy(update={"mosaic": 0.0, "rot90": 0.0})
