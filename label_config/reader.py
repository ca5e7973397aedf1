"""Read a project's labeling config into a `LabelConfig`: the prompts, the control for masks, the fields to fill.

Any labeling config can be served that has an image, a smart tool, a control for masks and a field. For any other one
the error contains the markup to add.

A config may contain these attributes, which Label Studio ignores:
    osprey="off"          do not use this control
    osprey="notice"       use this per-image TextArea for messages to the annotator (default: the one named `notice`)
    osprey_role           role of a control whose name is not its role
    osprey_question       question to ask instead of the role's default; several are separated by `|`
    osprey_threshold      leave the control empty if the answer's confidence (0 to 1) is lower
"""

from __future__ import annotations

import functools
import re
from xml.etree.ElementTree import Element

from label_config.controls import Control, controls_of, images_of
from label_config.fields import FIELD_TAGS, read_field
from label_config.schema import (
    Choice,
    ConfigError,
    Field,
    FieldQuestion,
    LabelConfig,
    OutputControl,
    OutputKind,
    PromptControl,
    PromptKind,
)
from label_config.xml_tree import parse_xml

__all__ = [
    "Choice",
    "ConfigError",
    "Field",
    "FieldQuestion",
    "LabelConfig",
    "OutputControl",
    "PromptControl",
    "read_label_config",
]

_PROMPTS: dict[str, PromptKind] = {
    "keypoint": "keypoint",
    "keypointlabels": "keypoint",
    "rectangle": "rectangle",
    "rectanglelabels": "rectangle",
}
# In order of preference: a brush slows the page down with every region, and a polygon has no holes.
_OUTPUTS: dict[str, OutputKind] = {
    "bitmasklabels": "bitmask",
    "bitmask": "bitmask",
    "polygonlabels": "polygon",
    "polygon": "polygon",
    "brushlabels": "brush",
    "brush": "brush",
}
_REGION_VALUES = {"rating", "number", "datetime", "pairwise", "ranker"}

_PROMPT_SNIPPET = '<KeyPoint name="click" toName="{image}" smart="true" smartOnly="true"/>'
_OUTPUT_SNIPPET = (
    '<BitmaskLabels name="mask" toName="{image}" smart="false">'
    '<Label value="Object"/><Label value="Part"/></BitmaskLabels>'
)
_FIELD_SNIPPET = '<TextArea name="category" toName="{image}" perRegion="true" editable="true" maxSubmissions="1"/>'
_IMAGE_SNIPPET = '<Image name="image" value="$image"/>'


@functools.lru_cache(maxsize=64)  # every click sends the whole config
def read_label_config(xml: str) -> LabelConfig:
    """Read a labeling config.

    With several images, the first one that has an output control is served; controls of other objects are ignored.
    With several output controls, bitmask is preferred to polygon and polygon to brush.

    Raises:
        ConfigError: there is no image, smart prompt, output control or field, or the XML cannot be read.
    """
    root = parse_xml(xml)
    image, controls, output = _image_with_output(root)
    image_name = (image.get("name") or "").strip()
    prompts = tuple(
        PromptControl(control.name, _PROMPTS[control.kind], _labels(control))
        for control in controls
        if control.kind in _PROMPTS and control.is_true("smart", default=True) and not _is_off(control)
    )
    if not prompts:
        raise ConfigError(
            f'no smart tool on image "{image_name}", so the backend is never asked; '
            f"add {_PROMPT_SNIPPET.format(image=image_name)}"
        )
    fields, notes = _fields(controls, output)
    if not fields:
        raise ConfigError(
            f'no per-region control on image "{image_name}" can be filled; '
            f"add {_FIELD_SNIPPET.format(image=image_name)}" + "".join(f"\n- {note}" for note in notes)
        )
    return LabelConfig(
        image_name=image_name,
        image_key=_image_key(image),
        prompts=prompts,
        output=OutputControl(output.name, _OUTPUTS[output.kind], _output_labels(output)),
        fields=fields,
        notice=_notice(controls),
        notes=notes,
        control_names=frozenset(element.get("name", "").strip() for element in root.iter() if element.get("toname")),
        listed_labels=frozenset(
            (element.get(key) or "").strip()
            for element in root.iter()
            if element.tag.lower() == "label"
            for key in ("alias", "value")
        )
        - {""},
    )


def _image_with_output(root: Element) -> tuple[Element, tuple[Control, ...], Control]:
    """Return the first image that has an output control, with its controls and the preferred output.

    Raises:
        ConfigError: the config has no image, or no image has an output control.
    """
    images = [image for image in images_of(root) if (image.get("name") or "").strip()]
    if not images:
        raise ConfigError(f"the labeling config has no <Image> with a name; add {_IMAGE_SNIPPET}")
    for image in images:
        controls = controls_of(root, (image.get("name") or "").strip())
        outputs = [control for control in controls if control.kind in _OUTPUTS and not _is_off(control)]
        if outputs:
            order = list(_OUTPUTS)
            return image, controls, min(outputs, key=lambda control: order.index(control.kind))
    name = (images[0].get("name") or "").strip()
    raise ConfigError(
        f'no control on image "{name}" can hold a mask (BitmaskLabels, PolygonLabels or BrushLabels); '
        f"add {_OUTPUT_SNIPPET.format(image=name)}"
    )


def _image_key(image: Element) -> str:
    """Return the key of the task's data that contains the image's address.

    Raises:
        ConfigError: the image has several pages, or its value is not a key.
    """
    if image.get("valuelist"):
        raise ConfigError(f"<Image valueList=...> (several pages per task) is not served; use {_IMAGE_SNIPPET}")
    value = (image.get("value") or "").strip()
    if not re.fullmatch(r"\$[\w.\-]+", value):
        raise ConfigError(
            f'expected <Image value="$..."> with the key of the task data that holds the image, got value="{value}"; '
            f"write {_IMAGE_SNIPPET}"
        )
    return value[1:]


def _is_off(control: Control) -> bool:
    """Return whether the attribute osprey="off" excludes the control."""
    return control.get("osprey").lower() == "off"


def _labels(control: Control) -> tuple[str, ...]:
    """Return a control's labels as Label Studio stores them."""
    return tuple(
        stored
        for element in control.element.iter()
        if element.tag.lower() == "label"
        and (stored := (element.get("alias") or "").strip() or (element.get("value") or "").strip())
    )


def _output_labels(output: Control) -> tuple[str, ...]:
    """Return the labels of the output control.

    Raises:
        ConfigError: a control that assigns labels lists none.
    """
    labels = _labels(output)
    if output.kind.endswith("labels") and not labels:
        raise ConfigError(
            f'{output.markup()} lists no <Label>, so a mask could carry none; add <Label value="Object"/> inside it'
        )
    return labels


def _fields(controls: tuple[Control, ...], output: Control) -> tuple[tuple[Field, ...], tuple[str, ...]]:
    """Return the fields in document order, and one note for each per-region control that is not filled."""
    fields, notes = [], []
    for control in controls:
        if control.kind in _OUTPUTS and control is not output:
            notes.append(f"{control.markup()} is left alone: masks go to {output.markup()}")
        if not control.is_true("perRegion"):
            continue
        if _is_off(control):
            notes.append(f'{control.markup()} is left alone: osprey="off"')
        elif control.kind in _REGION_VALUES:
            notes.append(f"{control.markup()} is left alone: a {control.element.tag} has no text")
        elif control.kind not in FIELD_TAGS:
            notes.append(f"{control.markup()} is left alone: <{control.element.tag}> is not filled")
        elif (tags := control.condition("whenTagName")) and output.name not in tags:
            notes.append(f'{control.markup()} is left alone: it is shown for regions of "{", ".join(tags)}"')
        elif isinstance(field := read_field(control), Field):
            fields.append(field)
        else:
            notes.append(field)
    return tuple(fields), tuple(notes)


def _notice(controls: tuple[Control, ...]) -> str | None:
    """Return the name of the TextArea for messages to the annotator; None: there is none."""
    for control in controls:
        if control.kind != "textarea" or control.is_true("perRegion") or _is_off(control):
            continue
        if control.get("osprey").lower() == "notice" or control.name.lower() == "notice":
            return control.name
    return None
