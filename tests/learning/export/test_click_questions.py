"""Claims about the file of click questions: its entries are the messages of a click with the submitted answers."""

from __future__ import annotations

from label_config.reader import read_label_config
from learning.export.click_questions import CLICK_TYPES
from osprey_model.data.mixture import DataFile, Source
from osprey_model.data.records import FirstDraws
from osprey_model.inputs.prompts import question_message
from tests.support.exports import ALL_TRAINED, export_project, street
from tests.support.stored_annotations import region_mask_of
from tests.support.submitted import CONFIG, PROJECT


def test_each_entry_is_the_message_of_a_click(tmp_path):
    """Prefix, form and text are those that the engine makes from the field's question; the mask is the region's."""
    version = export_project(PROJECT, [street()], tmp_path, ALL_TRAINED)
    told = {}
    for name, kind in CLICK_TYPES.items():
        source = Source(DataFile(kind, version.path / "train" / name, version.path / "images"))
        for position in range(len(source)):
            record = source.record(position, FirstDraws())
            for (message, answer), mask in zip(record.turns, record.masks(), strict=True):
                owner = next(each for each in ("car00001", "wheel001") if (region_mask_of(each) == mask).all())
                told[owner, message] = answer
    questions = {
        (field.name, idx): question_message(question.text, question.form)
        for field in read_label_config(CONFIG).fields
        for idx, question in enumerate(field.questions)
    }
    assert told == {
        ("car00001", questions["category", 0]): "car",
        ("car00001", questions["attribute", 0]): "blue",
        ("car00001", questions["attribute", 1]): "metal",
        ("car00001", questions["short_description", 0]): "a blue car",
        ("car00001", questions["detailed_description", 0]): "A blue metal car stands left of a tree.",
        ("wheel001", questions["part", 0]): "wheel",
    }
