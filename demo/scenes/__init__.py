"""The procedural demo world: drawn scenes with ground truth for masks and for every field.

scene.py         `make_scene(seed)`: the picture, its objects and parts with their masks
seeds.py         the ranges of seeds, which do not overlap
catalog.py       the categories with their named parts
newcomers.py     two more categories, which the small model was not trained on
shapes.py        outlines as polygons
palette.py       the ten colours
textures.py      the six materials
painter.py       one object as pixels
backgrounds.py   background, light and camera effects
layout.py        where the objects lie
truth.py         inner points and relations
grammar.py       true descriptions of a region, and checks of other descriptions
questions.py     questions in the styles of Osprey-724K
"""

from demo.scenes.catalog import CATALOG
from demo.scenes.palette import COLORS
from demo.scenes.scene import Scene, SceneObject, ScenePart, make_scene
from demo.scenes.seeds import BASE_SEEDS, DEMO_SEEDS, EVAL_SEEDS, REPLAY_SEEDS, TEAM_SEEDS, TRAIN_SEEDS
from demo.scenes.textures import MATERIALS

__all__ = [
    "BASE_SEEDS",
    "CATALOG",
    "COLORS",
    "DEMO_SEEDS",
    "EVAL_SEEDS",
    "MATERIALS",
    "REPLAY_SEEDS",
    "TEAM_SEEDS",
    "TRAIN_SEEDS",
    "Scene",
    "SceneObject",
    "ScenePart",
    "make_scene",
]
