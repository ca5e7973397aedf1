"""The ten colours of the demo world and the muted tones of its backgrounds.

An object's colour is one of `COLORS`; backgrounds are pale and nearly grey, so that every colour,
black and white included, stands out on every background under every light.
"""

from __future__ import annotations

from dataclasses import dataclass

Rgb = tuple[int, int, int]


@dataclass(frozen=True)
class Tone:
    """One named colour: its `base`, the `light` second tone of patterns, the `dark` line tone of grain."""

    base: Rgb
    light: Rgb
    dark: Rgb


COLORS: dict[str, Tone] = {
    "red": Tone((208, 34, 40), (255, 232, 226), (128, 14, 20)),
    "orange": Tone((243, 128, 18), (255, 240, 218), (176, 82, 6)),
    "yellow": Tone((250, 212, 40), (255, 253, 232), (194, 150, 10)),
    "green": Tone((42, 150, 62), (222, 246, 220), (18, 92, 34)),
    "blue": Tone((38, 92, 208), (220, 234, 255), (16, 50, 132)),
    "purple": Tone((128, 50, 168), (240, 222, 250), (76, 20, 108)),
    "pink": Tone((246, 128, 182), (255, 236, 246), (196, 72, 128)),
    "brown": Tone((118, 70, 34), (236, 214, 190), (66, 36, 14)),
    "black": Tone((34, 34, 40), (132, 134, 144), (84, 86, 94)),
    "white": Tone((246, 246, 243), (150, 156, 168), (184, 188, 196)),
}

# (upper or only tone, lower tone): sky and ground, wall and floor, or the two tones of a carpet.
BACKGROUND_TONES: tuple[tuple[Rgb, Rgb], ...] = (
    ((188, 204, 214), (168, 184, 158)),
    ((206, 198, 186), (176, 164, 150)),
    ((184, 192, 206), (160, 166, 180)),
    ((204, 188, 190), (178, 166, 172)),
    ((178, 194, 184), (158, 170, 164)),
    ((198, 198, 200), (170, 170, 174)),
    ((202, 194, 204), (172, 168, 182)),
    ((196, 202, 184), (178, 174, 156)),
)
