"""Images in memory: what as_bgr makes of Pillow's modes and NumPy's types."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from data.media.arrays import as_bgr
from utils.errors import UserError

ORIENTATION = 0x0112


@pytest.mark.parametrize("mode", ["I", "F"])
def test_a_pillow_image_whose_range_is_unknown_is_refused(mode):
    with pytest.raises(UserError, match=f"mode {mode} has 32 bits.*; convert it to L, RGB or I;16$"):
        as_bgr(Image.new(mode, (6, 4)))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["<u2", ">u2"])
def test_16_bits_give_the_upper_eight_upright(kind, orientation):
    values = np.random.default_rng(0).integers(0, 65536, (4, 6)).astype(kind)
    image, same = Image.fromarray(values), Image.fromarray((values >> 8).astype(np.uint8))
    for one in (image, same):
        one.getexif()[ORIENTATION] = orientation
    np.testing.assert_array_equal(as_bgr(image), as_bgr(same))
    assert as_bgr(image).shape == ((6, 4, 3) if orientation >= 5 else (4, 6, 3))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_other_modes_of_pillow_give_their_colors(mode):
    assert (as_bgr(Image.new("RGB", (6, 4), (255, 255, 255)).convert(mode)) == 255).all()
