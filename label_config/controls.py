"""The controls of one image, each with the conditions its surrounding Views put on it.

From these, `label_config.reader` chooses the prompts, the output control and the fields.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from label_config.schema import ConfigError


@dataclass(frozen=True, slots=True)
class Control:
    """One control tag. `kind` is its tag in lower case; `shown_when` are its own and its Views' conditions."""

    element: Element
    kind: str
    name: str
    shown_when: tuple[dict[str, str], ...]

    def get(self, attribute: str, default: str = "") -> str:
        """Return an attribute by its name in any case, stripped."""
        return self.element.get(attribute.lower(), default).strip()

    def is_true(self, attribute: str, *, default: bool = False) -> bool:
        """Read a boolean attribute; "true" and "1" are true, as in Label Studio."""
        text = self.get(attribute).lower()
        return text in ("true", "1") if text else default

    def condition(self, attribute: str) -> tuple[str, ...]:
        """Return all values that an attribute such as `whenLabelValue` has around this control (comma separated)."""
        values = [view[attribute.lower()] for view in self.shown_when if view.get(attribute.lower())]
        return tuple(part.strip() for value in values for part in value.split(",") if part.strip())

    def markup(self) -> str:
        """Return the tag as it can be found in the config, for messages."""
        return f'<{self.element.tag} name="{self.name}">'


_CONDITIONS = ("visiblewhen", "whentagname", "whenlabelvalue", "whenchoicevalue", "whenrole")


def images_of(root: Element) -> tuple[Element, ...]:
    """Return every Image tag, in document order."""
    return tuple(element for element in root.iter() if element.tag.lower() == "image")


def controls_of(root: Element, image_name: str) -> tuple[Control, ...]:
    """Return every control of that image, in document order.

    Raises:
        ConfigError: two tags share a name.
    """
    controls, seen = [], set()
    for element, conditions in _walk(root, ()):
        name = (element.get("name") or "").strip()
        if not name:
            continue
        if name in seen:
            raise ConfigError(f'two tags of the labeling config are named "{name}"; give each its own name')
        seen.add(name)
        targets = [target.strip() for target in (element.get("toname") or "").split(",")]
        if image_name in targets:
            controls.append(Control(element, element.tag.lower(), name, conditions))
    return tuple(controls)


def _walk(element: Element, outer: tuple[dict[str, str], ...]) -> Iterator[tuple[Element, tuple[dict[str, str], ...]]]:
    """Yield every element below with the conditions around it."""
    own = {name: element.attrib[name] for name in _CONDITIONS if name in element.attrib}
    conditions = (*outer, own) if own else outer
    yield element, conditions
    for child in element:
        yield from _walk(child, conditions)
