"""Claims about `osprey config check`."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

import label_config
from cli.main import app

READY = Path(label_config.__file__).parent


@pytest.mark.parametrize("kind", ["bitmask", "polygon", "brush"])
def test_check_shows_what_is_filled(kind, monkeypatch):
    """Prompts, output and every field with its question are printed."""
    monkeypatch.setenv("COLUMNS", "200")
    result = CliRunner().invoke(app, ["config", "check", str(READY / f"{kind}.xml")])
    assert result.exit_code == 0
    for words in ("click", "prompt, rectangle", f"output, {kind}", "What part is {region}?", "any number", "notice"):
        assert words in result.output


def test_check_shows_choices_threshold_and_notes(tmp_path, monkeypatch):
    """Closed fields list what may be said and what is stored; what is left alone is said with its reason."""
    monkeypatch.setenv("COLUMNS", "200")
    file = tmp_path / "config.xml"
    file.write_text(
        '<View><Image name="image" value="$image"/><KeyPoint name="click" toName="image"/>'
        '<Brush name="b" toName="image"/>'
        '<Choices name="category" toName="image" perRegion="true" osprey_threshold="0.5" whenLabelValue="Object">'
        '<Choice value="sports [bold] car" alias="car"/></Choices>'
        '<Rating name="r" toName="image" perRegion="true"/></View>',
        encoding="utf-8",
    )
    result = CliRunner().invoke(app, ["config", "check", str(file)])
    assert result.exit_code == 0
    for words in ("sports [bold] car -> car", "0.5", "Object", "a Rating has no text"):
        assert words in result.output


@pytest.mark.parametrize("content", [b"<View/>", b"", b"\xff\xfe"])
def test_refused_config_ends_with_1_and_the_reason(tmp_path, content):
    """A config that cannot be served ends with status 1 and says why, without a traceback."""
    file = tmp_path / "config.xml"
    file.write_bytes(content)
    result = CliRunner().invoke(app, ["config", "check", str(file)])
    assert result.exit_code == 1
    assert "cannot be served" in result.stderr
    assert "Traceback" not in result.output
