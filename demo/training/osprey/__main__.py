"""Train the small Osprey of the demo: `python -m demo.training.osprey --out demo/checkpoints/osprey-nano`.

There are five stages. Each is stored in the work folder, so that `--resume` continues a stopped run:

    scenes     draw the training scenes once                          osprey_scenes.py
    tower      train the ConvNeXt, in place of CLIP                   tower.py
    tokenizer  train SentencePiece on prompts and answers             ../tokenizer.py
    features   compute the frozen tower's features of every region    features.py
    decoder    train projector, mask extractor and decoder            decoder.py

`Osprey.from_pretrained` loads the result. The README.md beside it has its measured quality.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from demo.scenes.grammar import VOCABULARY
from demo.training.osprey.decoder import train_decoder
from demo.training.osprey.export import export
from demo.training.osprey.features import FeatureCache, compute_features
from demo.training.osprey.osprey_scenes import SceneCache, draw_cache
from demo.training.osprey.packing import PromptCoder
from demo.training.osprey.tower import train_tower
from demo.training.tokenizer import train_tokenizer, write_tokenizer
from osprey_model.config import OspreyConfig
from osprey_model.inputs.tokenizer import OspreyTokenizer
from osprey_model.modeling.osprey import OspreyForCausalLM
from osprey_model.weights.build import build_osprey

HELD_OUT_SEEDS = range(900_000, 900_096)  # inside TRAIN_SEEDS but never trained on; EVAL_SEEDS are not used
_TOWER_SHARE = 0.3  # of the minutes; the decoder has the rest
_FEATURE_SCENES_SHARE = 0.4  # of the scenes; the decoder visits each several times, the tower needs more scenes


class Training:
    """The five stages over one work folder. Each method yields progress (0 to 1) with a line for the log."""

    def __init__(self, work: Path, minutes: float, num_scenes: int, seed: int, device: torch.device) -> None:
        self.work, self.minutes, self.num_scenes, self.device = work, minutes, num_scenes, device
        self.config = OspreyConfig.preset("osprey-nano")
        torch.manual_seed(seed)
        self.model: OspreyForCausalLM = build_osprey(self.config, device=device)

    def scenes(self) -> Iterator[tuple[float, str]]:
        """Draw the held-out scenes and the training scenes."""
        for name, seeds in (("held_out", HELD_OUT_SEEDS), ("scenes", range(self.num_scenes))):
            for done in draw_cache(self.work / name, seeds, self.config.image_size):
                yield done / len(seeds), f"{done} of {len(seeds)} {name} drawn"
        self.held_out = SceneCache.open(self.work / "held_out")
        self.train_scenes = SceneCache.open(self.work / "scenes")

    def tower(self) -> Iterator[tuple[float, str]]:
        """Train the tower."""
        yield from train_tower(
            self.model.model.vision_tower,
            self.config,
            self.train_scenes,
            self.held_out,
            self.work / "tower.pt",
            self.minutes * _TOWER_SHARE,
        )

    def tokenizer(self) -> Iterator[tuple[float, str]]:
        """Train the tokenizer on the held-out scenes' answers, which are the same for every seed."""
        answers = [item.answer for record in self.held_out.records for item in record.questions]
        write_tokenizer(self.work / "tokenizer", train_tokenizer(answers, VOCABULARY, self.config.vocab_size))
        self.coder = PromptCoder(OspreyTokenizer.from_folder(self.work / "tokenizer"))
        yield 1.0, f"tokenizer with {self.config.vocab_size} pieces"

    def features(self) -> Iterator[tuple[float, str]]:
        """Run the frozen tower over the scenes that the decoder is trained on."""
        count = max(1, round(self.num_scenes * _FEATURE_SCENES_SHARE))
        parts = (("held_out", self.held_out, len(HELD_OUT_SEEDS)), ("scenes", self.train_scenes, count))
        for name, cache, number in parts:
            for done in compute_features(self.work / f"features_{name}", self.model, cache, number):
                if done % 50 == 0 or done == number:
                    yield done / number, f"features of {done} of {number} {name}"
        self.held_out_features = FeatureCache.open(self.work / "features_held_out", self.held_out.records)
        self.train_features = FeatureCache.open(self.work / "features_scenes", self.train_scenes.records)

    def decoder(self) -> Iterator[tuple[float, str]]:
        """Train everything except the tower."""
        yield from train_decoder(
            self.model,
            self.coder,
            self.train_features,
            self.held_out_features,
            self.work / "decoder.pt",
            self.minutes * (1 - _TOWER_SHARE),
        )


def main(
    out: Annotated[Path, typer.Option(help="Checkpoint folder to write.")],
    minutes: Annotated[float, typer.Option(help="Minutes for the two trainings, without drawing.")] = 53.0,
    resume: Annotated[bool, typer.Option(help="Continue in the work folder; by default it is emptied.")] = False,
    work: Annotated[Path, typer.Option(help="For scenes, features, snapshots and the log.")] = Path(
        ".osprey/train-osprey"
    ),
    scenes: Annotated[int, typer.Option(help="Number of scenes to draw.")] = 6000,
    seed: Annotated[int, typer.Option(help="Seed of the initial weights; scenes and batches have fixed seeds.")] = 0,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
) -> None:
    """Train osprey-nano on drawn scenes; uses CUDA if it is available."""
    torch.set_num_threads(threads)
    if not resume:
        shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    training = Training(work, minutes, scenes, seed, device)
    stages = (training.scenes, training.tower, training.tokenizer, training.features, training.decoder)
    columns = (
        TextColumn("{task.description:>10}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[line]}"),
    )
    console = Console()
    with (work / "log.txt").open("a", encoding="utf-8") as log, Progress(*columns, console=console) as progress:
        for stage in stages:
            task = progress.add_task(stage.__name__, total=1.0, line="")
            for done, line in stage():
                log.write(f"{line}\n")
                log.flush()
                progress.update(task, completed=done, line=line[:100])
            progress.update(task, completed=1.0)
    export(training.model, training.coder.tokenizer, work / "tokenizer", out)
    console.print(f"wrote {out}; `make eval-demo` measures it")


if __name__ == "__main__":
    typer.run(main)
