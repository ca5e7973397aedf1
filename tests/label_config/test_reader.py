"""Claims about reading any project's labeling config."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import label_config
from label_config.questions import DEFAULT_QUESTIONS
from label_config.reader import ConfigError, read_label_config

READY = Path(label_config.__file__).parent


@pytest.mark.parametrize("kind", ["bitmask", "polygon", "brush"])
def test_ready_config(kind):
    """Each config we ship gives click and box prompts, its output, the five roles and a notice control."""
    config = read_label_config((READY / f"{kind}.xml").read_text(encoding="utf-8"))
    assert [(prompt.name, prompt.kind, prompt.labels) for prompt in config.prompts] == [
        ("click", "keypoint", ()),
        ("box", "rectangle", ()),
    ]
    assert (config.output.kind, config.output.result_type) == (kind, f"{kind}labels")
    assert config.output.labels == ("Object", "Part")
    assert {field.role for field in config.fields} == {
        "category", "part", "attribute", "short_description", "detailed_description",
    }  # fmt: skip
    assert [field.multiple for field in config.fields if field.role == "attribute"] == [True]
    assert (config.image_name, config.image_key, config.notice, config.notes) == ("image", "image", "notice", ())


SMART = '<KeyPoint name="click" toName="image" smart="true"/>'
MASKS = '<BitmaskLabels name="mask" toName="image" smart="false"><Label value="Object"/></BitmaskLabels>'
CATEGORY = '<TextArea name="category" toName="image" perRegion="true" maxSubmissions="1"/>'


def read(controls: str = CATEGORY, *, smart: str = SMART, masks: str = MASKS, image: str = 'value="$image"'):
    """A config of an image, a smart tool, an output and the given controls, read."""
    return read_label_config(f'<View><Image name="image" {image}/>{smart}{masks}{controls}</View>')


def only_field(control: str):
    """The one field of a config with that control."""
    (field,) = read(control).fields
    return field


@pytest.mark.parametrize(
    ("markup", "kind", "labels"),
    [
        ('<KeyPoint name="p" toName="image"/>', "keypoint", ()),
        (
            '<KeyPointLabels name="p" toName="image" smart="true">'
            '<Label value="A" alias="a"/><Label value="B"/></KeyPointLabels>',
            "keypoint",
            ("a", "B"),
        ),
        ('<Rectangle name="p" toName="image" smart="1"/>', "rectangle", ()),
        (
            '<RectangleLabels name="p" toName="image" smart="true"><Label value="A"/></RectangleLabels>',
            "rectangle",
            ("A",),
        ),
    ],
)
def test_prompts(markup, kind, labels):
    """Points and boxes are prompts, with and without labels, unless smart is switched off."""
    (prompt,) = read(smart=markup).prompts
    assert (prompt.name, prompt.kind, prompt.labels) == ("p", kind, labels)


@pytest.mark.parametrize(
    ("tag", "kind"),
    [
        ("BitmaskLabels", "bitmask"), ("Bitmask", "bitmask"), ("BrushLabels", "brush"), ("Brush", "brush"),
        ("PolygonLabels", "polygon"), ("Polygon", "polygon"),
    ],
)  # fmt: skip
def test_outputs(tag, kind):
    """Bitmask, brush and polygon can hold masks, with and without labels; the result type is the tag's name."""
    label = '<Label value="Car" alias="c"/>' if tag.endswith("Labels") else ""
    output = read(masks=f'<{tag} name="m" toName="image">{label}</{tag}>').output
    assert (output.name, output.kind, output.result_type) == ("m", kind, tag.lower())
    assert output.labels == (("c",) if label else ())


def test_bitmask_is_preferred_and_the_rest_is_said():
    """Of several outputs the one that keeps the page fast is used; a note gives the reason for the others."""
    brush = '<BrushLabels name="brush" toName="image"><Label value="Object"/></BrushLabels>'
    config = read(masks=brush + MASKS)
    assert config.output.name == "mask"
    assert config.notes == ('<BrushLabels name="brush"> is left alone: masks go to <BitmaskLabels name="mask">',)
    switched_off = MASKS.replace("<BitmaskLabels", '<BitmaskLabels osprey="off"')
    assert read(masks=brush + switched_off).output.name == "brush"


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("category", "category"),
        ("Category", "category"),
        ("attributes", "attribute"),
        ("short-description", "short_description"),
    ],
)
def test_role_by_name(name, role):
    """The role is the control's name in any case; plural attributes and dashes are understood."""
    field = only_field(f'<TextArea name="{name}" toName="image" perRegion="true"/>')
    assert field.role == role
    assert field.questions == DEFAULT_QUESTIONS[role]


def test_role_and_question_by_attribute():
    """osprey_role sets the role of any control, osprey_question replaces the question, `|` separates several."""
    field = only_field(
        '<TextArea name="species" toName="image" perRegion="true" osprey_role="category" '
        'osprey_question="What animal is {region}? | What plant is {region}?" osprey_threshold="0.6"/>'
    )
    assert (field.role, field.threshold) == ("category", 0.6)
    assert [(question.text, question.form) for question in field.questions] == [
        ("What animal is {region}?", "part"),
        ("What plant is {region}?", "part"),
    ]


def test_custom_field_needs_a_question():
    """A control whose name is no role is filled if it has a question; otherwise a note names it."""
    custom = '<TextArea name="wear" toName="image" perRegion="true" {}/>'
    field = only_field(custom.format('osprey_question="How worn is {region}?"'))
    assert (field.role, field.questions[0].form) == ("custom", "part")
    config = read(CATEGORY + custom.format(""))
    assert [field.name for field in config.fields] == ["category"]
    assert "osprey_question" in config.notes[0]


@pytest.mark.parametrize(
    ("attributes", "multiple", "max_values"),
    [
        ("", True, None),
        ('maxSubmissions="1"', False, 1),
        ('maxSubmissions="3"', True, 3),
        ('maxSubmissions="x"', True, None),
    ],
)
def test_how_many_texts(attributes, multiple, max_values):
    """A TextArea has at most maxSubmissions texts, and any number without this attribute."""
    field = only_field(f'<TextArea name="attribute" toName="image" perRegion="true" {attributes}/>')
    assert (field.multiple, field.max_values) == (multiple, max_values)


@pytest.mark.parametrize(
    ("attributes", "multiple", "max_values"),
    [
        ("", False, 1),
        ('choice="single-radio"', False, 1),
        ('choice="multiple"', True, None),
        ('choice="multiple" maxUsages="2"', True, 2),
    ],
)
def test_choices(attributes, multiple, max_values):
    """Choices store the alias and show the value without html; there is one answer unless choice is multiple."""
    field = only_field(
        f'<Choices name="category" toName="image" perRegion="true" {attributes}><View>'
        '<Choice value="sports car" alias="car"/><Choice value="tree" html="&lt;b&gt;Tree&lt;/b&gt;"/></View></Choices>'
    )
    assert [(choice.value, choice.text, choice.path) for choice in field.choices] == [
        ("car", "sports car", ("car",)),
        ("tree", "tree", ("tree",)),
    ]
    assert (field.multiple, field.max_values, field.result_type) == (multiple, max_values, "choices")


TREE = """<Taxonomy name="part" toName="image" perRegion="true" {}>
  <Choice value="car"><Choice value="door" alias="d"/><Choice value="wheel"/></Choice>
  <Choice value="house"><Choice value="door"/></Choice>
</Taxonomy>"""


def test_taxonomy():
    """Every node is a choice; equal names have their path in front, so that the model can distinguish them."""
    field = only_field(TREE.format(""))
    assert {choice.text: choice.path for choice in field.choices} == {
        "car": ("car",),
        "car door": ("car", "d"),
        "wheel": ("car", "wheel"),
        "house": ("house",),
        "house door": ("house", "door"),
    }
    assert (field.multiple, field.max_values) == (True, None)
    leaves = only_field(TREE.format('leafsOnly="true" maxUsages="1"'))
    assert [choice.text for choice in leaves.choices] == ["car door", "wheel", "house door"]
    assert (leaves.multiple, leaves.max_values) == (False, 1)


@pytest.mark.parametrize(
    ("control", "words"),
    [
        ('<Rating name="x" toName="image" perRegion="true"/>', "a Rating has no text"),
        ('<Number name="x" toName="image" perRegion="true"/>', "a Number has no text"),
        ('<DateTime name="x" toName="image" perRegion="true"/>', "a DateTime has no text"),
        ('<Labels name="x" toName="image" perRegion="true"/>', "<Labels> is not filled"),
        ('<TextArea name="part" toName="image" perRegion="true" osprey="off"/>', 'osprey="off"'),
        ('<Choices name="part" toName="image" perRegion="true" value="$choices"/>', "from outside the config"),
        ('<Taxonomy name="part" toName="image" perRegion="true" apiUrl="http://x"/>', "from outside the config"),
        ('<Choices name="part" toName="image" perRegion="true" allowNested="true"/>', "use <Taxonomy>"),
        (
            '<View visibleWhen="region-selected" whenTagName="boxes">'
            '<TextArea name="part" toName="image" perRegion="true"/></View>',
            'shown for regions of "boxes"',
        ),
    ],
)
def test_left_alone_and_said(control, words):
    """A note names every control that is not filled, with the reason; the others are served."""
    config = read(CATEGORY + control)
    assert [field.name for field in config.fields] == ["category"]
    assert words in config.notes[0]


def test_conditions_of_surrounding_views():
    """whenLabelValue on the control or on a View around it restricts the field to those labels."""
    part = '<TextArea name="part" toName="image" perRegion="true" {}/>'
    for markup in (
        part.format('whenLabelValue="Part,Sub part"'),
        '<View visibleWhen="region-selected" whenTagName="other,mask" whenLabelValue="Part, Sub part">'
        f"{part.format('')}</View>",
    ):
        field = only_field(markup)
        assert field.when_labels == ("Part", "Sub part")
        assert field.applies_to("Part")
        assert not field.applies_to("Object")
    assert only_field(CATEGORY).applies_to("Object")


def test_other_objects_are_ignored():
    """Controls of a text, and of an image without an output, are ignored."""
    config = read_label_config(
        '<View><Text name="text" value="$text"/><Image name="left" value="$left"/>'
        '<Image name="image" value="$right.url"/>'
        '<Choices name="part" toName="text" perRegion="true"/><Rectangle name="r" toName="left"/>'
        '<TextArea name="notice" toName="left"/>'
        f"{SMART}{MASKS}{CATEGORY}</View>"
    )
    assert (config.image_name, config.image_key, config.notice) == ("image", "right.url", None)
    assert [field.name for field in config.fields] == ["category"]


def test_names_are_read_in_any_case():
    """Tags and attributes are read in any case, as in Label Studio."""
    config = read_label_config(
        '<view><image NAME="image" VALUE="$image"/><keypoint name="click" toname="image" SMART="true"/>'
        '<brushlabels name="mask" TONAME="image"><label VALUE="Object"/></brushlabels>'
        '<textarea name="category" toname="image" PERREGION="true"/></view>'
    )
    assert (config.output.kind, config.fields[0].tag) == ("brush", "TextArea")


@pytest.mark.parametrize(
    ("control", "notice"),
    [
        ('<TextArea name="notice" toName="image"/>', "notice"),
        ('<TextArea name="messages" toName="image" osprey="notice"/>', "messages"),
        ('<TextArea name="caption" toName="image"/>', None),
        ('<TextArea name="notice" toName="image" osprey="off"/>', None),
    ],
)
def test_notice(control, notice):
    """Only a per-image TextArea that is marked or named as notice receives messages; a caption of the image is data."""
    assert read(CATEGORY + control).notice == notice


@pytest.mark.parametrize(
    ("xml", "words"),
    [
        ("", "is empty"),
        ("  \n", "is empty"),
        ("<View>", "not well-formed"),
        ("not xml", "not well-formed"),
        ("<View>\ud800</View>", "not text"),
        ('<!DOCTYPE x [<!ENTITY e "boom">]><View>&e;</View>', "DOCTYPE"),
        ('<!DOCTYPE x SYSTEM "file:///etc/passwd"><View/>', "DOCTYPE"),
        ("<View>&undefined;</View>", "not well-formed"),
        ("<View>" * 101 + "</View>" * 101, "deeper than 100"),
        ("<View>" + " " * 2_000_001 + "</View>", "characters"),
        ("<View/>", '<Image name="image" value="$image"/>'),
        (f"<View>{SMART}{MASKS}</View>", "no <Image>"),
    ],
)
def test_hostile_or_broken_xml_is_refused(xml, words):
    """Entities, external documents, too deep or too large text, and other text than XML have one clear error each."""
    with pytest.raises(ConfigError, match=re.escape(words)):
        read_label_config(xml)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"smart": ""}, 'add <KeyPoint name="click" toName="image" smart="true"'),
        ({"smart": SMART.replace("true", "false")}, "no smart tool"),
        ({"smart": SMART.replace("/>", ' osprey="off"/>')}, "no smart tool"),
        ({"masks": ""}, 'add <BitmaskLabels name="mask" toName="image"'),
        ({"masks": '<BrushLabels name="m" toName="image"/>'}, 'add <Label value="Object"/>'),
        ({"controls": ""}, 'add <TextArea name="category" toName="image" perRegion="true"'),
        ({"controls": '<Rating name="x" toName="image" perRegion="true"/>'}, "a Rating has no text"),
        ({"controls": '<TextArea name="category" toName="image"/>'}, "no per-region control"),
        ({"controls": CATEGORY + CATEGORY}, 'named "category"'),
        ({"image": 'value="http://x/y.png"'}, "task data that holds the image"),
        ({"image": 'valueList="$pages"'}, "several pages"),
        ({"controls": CATEGORY.replace("/>", ' osprey_role="colour"/>')}, "expected one of category, part"),
        ({"controls": CATEGORY.replace("/>", ' osprey_question="What?"/>')}, "{region} exactly once"),
        ({"controls": CATEGORY.replace("/>", ' osprey_question="{region} or {region}?"/>')}, "exactly once"),
        ({"controls": CATEGORY.replace("/>", ' osprey_question="{region} {0}?"/>')}, "exactly once"),
        ({"controls": CATEGORY.replace("/>", ' osprey_question="{region} &lt;mask&gt;?"/>')}, "exactly once"),
        ({"controls": CATEGORY.replace("/>", ' osprey_threshold="60%"/>')}, "from 0 to 1"),
        ({"controls": CATEGORY.replace("/>", ' osprey_threshold="nan"/>')}, "from 0 to 1"),
        ({"controls": '<Choices name="part" toName="image" perRegion="true"/>'}, "lists no choice"),
        (
            {"controls": '<Choices name="part" toName="image" perRegion="true"><Choice alias="a"/></Choices>'},
            "without a value",
        ),
        (
            {
                "controls": '<Choices name="part" toName="image" perRegion="true">'
                '<Choice value="a"/><Choice value="a"/></Choices>'
            },
            "twice",
        ),
        (
            {
                "controls": '<Choices name="part" toName="image" perRegion="true">'
                '<Choice value="a" alias="1"/><Choice value="a" alias="2"/></Choices>'
            },
            'shows "a" for two',
        ),
        (
            {
                "controls": '<Choices name="part" toName="image" perRegion="true">'
                '<Choice value="a"><Choice value="b"/></Choice></Choices>'
            },
            "use <Taxonomy>",
        ),
    ],
)
def test_config_that_cannot_be_served_is_refused(parts, words):
    """The message contains what is missing or wrong, and the markup to add."""
    with pytest.raises(ConfigError, match=re.escape(words)):
        read(**parts)


@pytest.mark.parametrize("name", ["label_config_tested.xml", "label_config_tested_bitmask.xml"])
def test_configs_that_were_driven_in_a_browser(name):
    """The two configs whose behaviour was recorded in a real page are served completely."""
    config = read_label_config((Path(__file__).parents[1] / "data" / name).read_text(encoding="utf-8"))
    assert len(config.prompts) == 2
    assert len(config.fields) == 5
    assert config.notes == ()
