"""Claims about `osprey collect`."""

from __future__ import annotations

from typer.testing import CliRunner

from cli.main import app
from learning.corrections.store import Store
from tests.support.label_studio_project import TOKEN, LabelStudioProject
from tests.support.submitted import CAR, region


def test_collect_fills_the_store_and_says_what_failed(tmp_path):
    """All projects that can be served, then one; a project that is not there is named and the command fails."""
    server = LabelStudioProject()
    server.add_project(4, '<View><Text name="text" value="$text"/></View>')
    server.add_task(1, url="data:image/png;base64,AAAA")
    server.annotate(1, region("car00001", CAR, suggestion={"category": ["truck"]}))
    database = f"sqlite:///{tmp_path}/deep/down/corrections.db"
    environment = {
        "OSPREY_LABEL_STUDIO_URL": server.url, "OSPREY_LABEL_STUDIO_TOKEN": TOKEN, "COLUMNS": "80",
        "OSPREY_DATABASE_URL": database, "OSPREY_CACHE_DIR": str(tmp_path / "cache"), "OSPREY_BLIND_SHARE": "0",
    }  # fmt: skip

    def run(*arguments: str):
        return CliRunner().invoke(app, ["collect", *arguments], env=environment)

    try:
        found = run()
        assert found.exit_code == 0, found.output
        assert all(name in found.output for name in ("Annotations", "Corrected", "Problems")), "cut at 80 characters"
        first_words = [line.split()[0] for line in found.output.splitlines() if line.strip()]
        assert "3" in first_words
        assert "4" not in first_words
        with Store.open(database) as store:
            assert store.counts(3).corrected_regions == 1
            assert [each.kind for each in store.problems(3)] == ["image"]  # it is no picture
        assert run("--project", "3", "--all").exit_code == 0
        missing = run("--project", "3", "--project", "9")
        assert missing.exit_code == 1
        assert "project 9" in missing.output
    finally:
        server.close()
