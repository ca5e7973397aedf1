"""Settings come from a mapping, once, with messages that name the variable."""

from __future__ import annotations

from pathlib import Path

import pytest

from learning.settings import Settings as LearningSettings
from worker.settings import Settings


def test_empty_environment_gives_the_defaults():
    assert Settings.from_env({}) == Settings.from_env({"OSPREY_REDIS_URL": " ", "OSPREY_THREADS": ""})


def test_every_variable_is_read():
    settings = Settings.from_env(
        {
            "OSPREY_REDIS_URL": "redis://r",
            "OSPREY_LABEL_STUDIO_URL": "http://ls",
            "OSPREY_LABEL_STUDIO_TOKEN": "secret",
            "OSPREY_MODEL": "/m",
            "OSPREY_SAM": "vit_b",
            "OSPREY_DEVICE": "cuda:1",
            "OSPREY_THREADS": "2",
            "OSPREY_CACHE_DIR": "/c",
            "OSPREY_IMAGE_ALLOW_HOSTS": "a, 10.0.0.0/8,",
            "OSPREY_IMAGE_MAX_BYTES": "1_000",
            "OSPREY_IMAGE_MAX_PIXELS": "2000",
            "OSPREY_LOG_LEVEL": "debug",
        }
    )
    assert settings.redis_url == "redis://r"
    assert settings.label_studio_url == "http://ls"
    assert settings.model == Path("/m")
    assert settings.sam == "vit_b"
    assert settings.device == "cuda:1"
    assert settings.threads == 2
    assert settings.cache_dir == Path("/c")
    assert settings.image_allow_hosts == ("a", "10.0.0.0/8")
    assert settings.image_max_bytes == 1000
    assert settings.image_max_pixels == 2000
    assert settings.log_level == "DEBUG"
    assert "secret" not in repr(settings)


@pytest.mark.parametrize("value", ["many", "0", "-1", "1.5"])
def test_bad_number_names_its_variable(value):
    with pytest.raises(ValueError, match=f"OSPREY_THREADS must be a whole number above zero, got '{value}'"):
        Settings.from_env({"OSPREY_THREADS": value})


def test_default_threads_leave_room_for_the_other_worker(monkeypatch):
    """Half of the cores that the process may use, and at least one."""
    from worker.processor import default_threads

    for cores, expected in ((1, 1), (2, 1), (16, 8)):
        monkeypatch.setattr("os.sched_getaffinity", lambda pid, cores=cores: set(range(cores)))
        assert default_threads() == expected


def test_projects_are_numbers():
    """A list of project numbers is read, blanks and all; a name in it is refused with the variable's name."""
    assert LearningSettings.from_env({"OSPREY_PROJECTS": " 3, 12,"}).projects == (3, 12)
    assert LearningSettings.from_env({}).projects == ()
    with pytest.raises(ValueError, match=r"OSPREY_PROJECTS must be project numbers .* got '3, street'"):
        LearningSettings.from_env({"OSPREY_PROJECTS": "3, street"})
