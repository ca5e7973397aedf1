"""Load SAM and Osprey into this process, which runs at the lowest priority: bulk work beside the workers."""

from __future__ import annotations

import logging

from worker.load_version import ChampionLoader
from worker.prelabel.annotate import AnnotateOptions, ImageAnnotator
from worker.processor import default_threads, give_way, limit_threads, pick_device
from worker.settings import Settings

_LOG = logging.getLogger(__name__)


def local_annotator(settings: Settings, device: str, options: AnnotateOptions) -> ImageAnnotator:
    """Load both models and set this process to the lowest priority.

    Raises:
        ModelUnavailable: a checkpoint is missing or does not load.
        RegistryError: the registry's pointer cannot be read.
    """
    limit_to_spare_time(settings)
    return load_annotator(settings, device, options)


def limit_to_spare_time(settings: Settings) -> None:
    """Set the lowest priority and the workers' number of threads for this process."""
    give_way()
    limit_threads(settings.threads or default_threads())


def load_annotator(settings: Settings, device: str, options: AnnotateOptions) -> ImageAnnotator:
    """Load SAM and the registry's champion (without one, the settings' Osprey), as the workers do.

    Raises:
        ModelUnavailable: a checkpoint is missing or does not load.
        RegistryError: the registry's pointer cannot be read.
    """
    from worker.sam.segmenter import SamSegmenter

    device = pick_device() if device == "auto" else device
    served = ChampionLoader(settings).load_first(device)
    if served.problem:
        _LOG.warning("%s", served.problem)
    return ImageAnnotator(SamSegmenter.load(settings.sam, device), served.describer, options)
