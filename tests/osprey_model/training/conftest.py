"""Fixtures for the training tests: drawn scenes as data files, and start checkpoints.

In a decoder with new weights the logits hardly depend on the context, so a module in front of it could not learn.
Stages 2, 3 and LoRA therefore start from osprey-nano, with half its image size to save time. Its decoder was not
trained on captions of whole images, so stage 1 starts from a tiny model that was (`listener`).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from demo.scenes.scene import make_scene
from osprey_model.config import OspreyConfig
from osprey_model.data.collate import Sample, collate
from osprey_model.data.conversation import encode_caption
from osprey_model.inputs.preprocess import ImagePreprocessor
from osprey_model.inputs.tokenizer import OspreyTokenizer
from osprey_model.weights.build import build_osprey
from osprey_model.weights.checkpoint import save_checkpoint

NANO = Path(__file__).parents[3] / "demo" / "checkpoints" / "osprey-nano"
SEEDS = (5000, 5001)
# These answers are false, so a model that gives them has learned them here. The two regions of an image differ.
ANSWERS = ("clock", "boat", "tree", "lamp")
CAPTIONS = ("A red car.", "A blue boat.")


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two images of two regions each, region.json, caption.json and a data config for each."""
    folder = tmp_path_factory.mktemp("scenes")
    entries, captions, answers = [], [], iter(ANSWERS)
    for seed, caption in zip(SEEDS, CAPTIONS, strict=True):
        scene = make_scene(seed, (256, 192))
        Image.fromarray(np.asarray(scene.image)).save(folder / f"{seed}.png")
        captions.append(
            {
                "image": f"{seed}.png",
                "conversations": [
                    {"from": "human", "value": "Describe.\n<image>"},
                    {"from": "gpt", "value": caption},
                ],
            }
        )
        for thing in scene.objects[:2]:
            rle = coco_mask.encode(np.asfortranarray(thing.mask.astype(np.uint8)))
            segmentation = {"size": rle["size"], "counts": rle["counts"].decode()}
            question = {"from": "human", "value": "What is the category of <region1>?"}
            entries.append(
                {
                    "file_name": f"{seed}.png",
                    "height": 192,
                    "width": 256,
                    "annotation": [{"bbox": [0, 0, 1, 1], "segmentation": segmentation}],
                    "conversations": [question, {"from": "gpt", "value": next(answers)}],
                }
            )
    (folder / "region.json").write_text(json.dumps(entries))
    (folder / "caption.json").write_text(json.dumps(captions))
    for name, kind in (("region", "OspreyShortForm"), ("caption", "llava")):
        row = {"type": kind, "ann_file": f"{name}.json", "img_prefix": "."}
        (folder / f"{name}_data.json").write_text(json.dumps([row]))
    return folder


@pytest.fixture(scope="session")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return osprey-nano with 64 image tokens instead of 256; no weight of the tower depends on the image size."""
    folder = tmp_path_factory.mktemp("nano") / "nano"
    shutil.copytree(NANO, folder, copy_function=shutil.copyfile)
    config = json.loads((folder / "config.json").read_text())
    config["osprey"]["image_size"] = 128
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint folder with new weights of a few hundred kilobytes, for tests that need no good answers."""
    return write_tiny(tmp_path_factory.mktemp("tiny") / "tiny")


@pytest.fixture(scope="session")
def listener(tmp_path_factory: pytest.TempPathFactory, scenes: Path) -> Path:
    """Return a tiny model whose decoder was trained to answer with the captions, and whose projector has new weights.

    Its decoder takes the place of Vicuna. Stage 1 has to train a projector whose image tokens this decoder can use.
    """
    folder = write_tiny(tmp_path_factory.mktemp("listener") / "listener")
    torch.manual_seed(0)
    config = OspreyConfig.from_file(folder)
    model = build_osprey(config)
    model.model.vision_tower.requires_grad_(False)
    tokenizer, preprocess = OspreyTokenizer.from_folder(folder), ImagePreprocessor(config.image_size)
    pictures = [preprocess(Image.open(scenes / f"{seed}.png")) for seed in SEEDS]
    samples = [
        Sample(encode_caption(tokenizer, caption), picture, None)
        for caption, picture in zip(CAPTIONS, pictures, strict=True)
    ]
    batch = collate(samples, pad_token_id=0)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(120):
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    fresh = build_osprey(config)
    model.model.mm_projector.load_state_dict(fresh.model.mm_projector.state_dict())
    save_checkpoint(model, folder)
    return folder


def write_tiny(folder: Path) -> Path:
    """Write a checkpoint folder with new weights and the tokenizer of osprey-nano; return it."""
    torch.manual_seed(0)
    config = OspreyConfig(
        image_size=64,
        vision_depths=(1, 1, 1, 1),
        vision_dims=(8, 16, 24, 32),
        vision_layer_scale_init=0.5,
        vision_clip_embed_dim=None,
        mask_embed_dim=16,
        mask_shape=14,
        vocab_size=1024,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
    )
    save_checkpoint(build_osprey(config), folder)
    shutil.copyfile(NANO / "tokenizer.json", folder / "tokenizer.json")
    return folder
