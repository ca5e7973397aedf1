"""The procedural demo world: drawn scenes with ground truth for masks and for every field.

`make_scene(seed)` draws; `demo.scenes.grammar` says in words what is there and checks what others say;
`demo.scenes.questions` asks about it. `TRAIN_SEEDS`, `EVAL_SEEDS` and `DEMO_SEEDS` never meet.
"""

from demo.scenes.catalog import CATALOG
from demo.scenes.palette import COLORS
from demo.scenes.scene import Scene, SceneObject, ScenePart, make_scene
from demo.scenes.seeds import DEMO_SEEDS, EVAL_SEEDS, TRAIN_SEEDS
from demo.scenes.textures import MATERIALS

__all__ = [
    "CATALOG",
    "COLORS",
    "DEMO_SEEDS",
    "EVAL_SEEDS",
    "MATERIALS",
    "TRAIN_SEEDS",
    "Scene",
    "SceneObject",
    "ScenePart",
    "make_scene",
]
