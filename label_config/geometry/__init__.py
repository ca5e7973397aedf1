"""Label Studio's formats for masks and shapes.

region_mask.py   any stored result item -> mask
bitmask_png.py   bitmask data URL <-> mask
brush_rle.py     brush RLE <-> mask
polygon.py       polygons in percent <-> mask
outlines.py      mask -> rings with few corners
winding.py       rings -> mask
coordinates.py   percent <-> pixels
"""

from label_config.geometry.bitmask_png import decode_bitmask_png, encode_bitmask_png
from label_config.geometry.brush_rle import decode_brush_rle, encode_brush_rle
from label_config.geometry.polygon import mask_to_polygon_pct, mask_to_polygons_pct, polygons_pct_to_mask
from label_config.geometry.region_mask import region_mask

__all__ = [
    "decode_bitmask_png",
    "decode_brush_rle",
    "encode_bitmask_png",
    "encode_brush_rle",
    "mask_to_polygon_pct",
    "mask_to_polygons_pct",
    "polygons_pct_to_mask",
    "region_mask",
]
