"""Claims about the passwords of the compose stack: random, complete, and unchanged by a second run."""

import subprocess

from stack.compose_secrets import DEFAULT_USERNAME, make_secrets


def read_env(path):
    """Return the variables of a POSIX shell that has sourced `path`."""
    script = f"set -a; . {path}; env -0"
    output = subprocess.run(["sh", "-c", script], env={}, check=True, capture_output=True, text=True).stdout
    return dict(line.split("=", 1) for line in output.split("\0") if "=" in line)


def test_a_second_run_keeps_every_password(tmp_path):
    make_secrets(tmp_path, {})
    before = {path.name: path.read_text() for path in tmp_path.iterdir()}
    make_secrets(tmp_path, {"OSPREY_LABEL_STUDIO_PASSWORD": "changed"})
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before


def test_two_stacks_share_no_password(tmp_path):
    make_secrets(tmp_path / "a", {})
    make_secrets(tmp_path / "b", {})
    for name in ("redis_password", "postgres_password", "label-studio.env", "osprey.env"):
        assert (tmp_path / "a" / name).read_text() != (tmp_path / "b" / name).read_text()


def test_a_password_with_shell_characters_arrives_unchanged(tmp_path):
    password = """a'b"c $HOME `id` \\ #x"""
    make_secrets(tmp_path, {"OSPREY_LABEL_STUDIO_PASSWORD": password})
    assert read_env(tmp_path / "label-studio.env")["LABEL_STUDIO_PASSWORD"] == password


def test_services_and_workers_agree_on_the_passwords(tmp_path):
    make_secrets(tmp_path, {})
    label_studio, ours = read_env(tmp_path / "label-studio.env"), read_env(tmp_path / "osprey.env")
    redis_password = (tmp_path / "redis_password").read_text()
    assert label_studio["LABEL_STUDIO_USERNAME"] == DEFAULT_USERNAME
    assert label_studio["POSTGRE_PASSWORD"] == (tmp_path / "postgres_password").read_text()
    assert f"requirepass {redis_password}\n" in (tmp_path / "redis.conf").read_text()
    assert f":{redis_password}@redis:6379" in ours["OSPREY_REDIS_URL"]
    store = read_env(tmp_path / "store.env")
    assert f":{label_studio['POSTGRE_PASSWORD']}@postgres/" in store["OSPREY_DATABASE_URL"]
