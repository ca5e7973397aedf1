"""The procedural demo world: drawn scenes with ground truth for masks and for every field.

`make_scene(seed)` draws; `demo.scenes.grammar` says in words what is there and checks what others say;
`demo.scenes.questions` asks about it. The ranges of `demo/scenes/seeds.py` never meet.
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
