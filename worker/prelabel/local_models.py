"""SAM and Osprey loaded into this process, which then gives way to every other: bulk work beside the workers."""

from __future__ import annotations

from registry.champion_watch import ChampionWatch
from worker.load_version import load_version
from worker.osprey_describer import OspreyDescriber
from worker.prelabel.annotate import AnnotateOptions, ImageAnnotator
from worker.processor import default_threads, give_way, limit_threads, pick_device
from worker.settings import Settings


def local_annotator(settings: Settings, device: str, options: AnnotateOptions) -> ImageAnnotator:
    """Both models, in a process that gives way to every other.

    Raises:
        ModelUnavailable: a checkpoint is missing or does not load.
        RegistryError: the registry's pointer cannot be read.
    """
    limit_to_spare_time(settings)
    return load_annotator(settings, device, options)


def limit_to_spare_time(settings: Settings) -> None:
    """The lowest priority and the workers' number of threads for this process."""
    give_way()
    limit_threads(settings.threads or default_threads())


def load_annotator(settings: Settings, device: str, options: AnnotateOptions) -> ImageAnnotator:
    """SAM and the registry's champion (without one, the settings' Osprey), as the workers serve them.

    Raises:
        ModelUnavailable, RegistryError: as for `local_annotator`.
    """
    from worker.sam.segmenter import SamSegmenter

    device = pick_device() if device == "auto" else device
    champion = ChampionWatch(settings.registry)
    version = champion.version(champion.read())
    if version is None:
        describer = OspreyDescriber.load(settings.model, device)
    else:
        describer = load_version(settings, device, version)
    return ImageAnnotator(SamSegmenter.load(settings.sam, device), describer, options)
