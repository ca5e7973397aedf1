"""Untrusted XML text -> element tree.

Tag names keep their spelling in `Element.tag`. Attribute names are lower-cased, because Label Studio's editor ignores
their case.
"""

from __future__ import annotations

from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from label_config.schema import ConfigError

MAX_CONFIG_CHARACTERS = 2_000_000
MAX_DEPTH = 100


def parse_xml(xml: str) -> Element:
    """Parse a labeling config and return its root element.

    A document type declaration is refused, because it is the only way to declare entities and a labeling config needs
    none. Nothing outside the text is read.

    Raises:
        ConfigError: the text is empty, too long, nested too deeply, has a document type, or is not well-formed XML.
    """
    if not xml.strip():
        raise ConfigError(
            "the labeling config is empty; paste one of label_config/*.xml into the project's "
            "Settings > Labeling Interface > Code"
        )
    if len(xml) > MAX_CONFIG_CHARACTERS:
        raise ConfigError(f"the labeling config has {len(xml)} characters; at most {MAX_CONFIG_CHARACTERS} are read")
    builder = TreeBuilder()
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > MAX_DEPTH:
            raise ConfigError(f"the labeling config nests tags deeper than {MAX_DEPTH} levels; flatten it")
        builder.start(tag, {name.lower(): value for name, value in attributes.items()})

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse_doctype(*_: object) -> None:
        raise ConfigError("the labeling config holds a <!DOCTYPE> declaration; remove it, Label Studio needs none")

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse_doctype
    try:
        parser.Parse(xml, True)
        return builder.close()
    except expat.ExpatError as error:
        raise ConfigError(f"the labeling config is not well-formed XML: {error}") from error
    except UnicodeEncodeError as error:
        raise ConfigError(f"the labeling config holds a character that is not text: {error}") from error
