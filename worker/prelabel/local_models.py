"""SAM and Osprey loaded into this process, which then gives way to every other: bulk work beside the workers."""

from __future__ import annotations

import os

from worker.models import OspreyDescriber
from worker.prelabel.annotate import AnnotateOptions, ImageAnnotator
from worker.runtime import default_threads, limit_threads, pick_device
from worker.settings import Settings

_LOWEST_PRIORITY = 19


def local_annotator(settings: Settings, device: str, options: AnnotateOptions) -> ImageAnnotator:
    """Both models of the settings, in a process that gives way to every other.

    Raises:
        ModelUnavailable: a checkpoint is missing or does not load.
    """
    if hasattr(os, "nice"):
        os.nice(_LOWEST_PRIORITY)
    limit_threads(settings.threads or default_threads())
    return load_annotator(settings, device, options)


def load_annotator(settings: Settings, device: str, options: AnnotateOptions) -> ImageAnnotator:
    """Both models of the settings on a device, "auto" for a GPU where there is one.

    Raises:
        ModelUnavailable: as for `local_annotator`.
    """
    from worker.segmenter import Segmenter

    device = pick_device() if device == "auto" else device
    return ImageAnnotator(Segmenter.load(settings.sam, device), OspreyDescriber.load(settings.model, device), options)
