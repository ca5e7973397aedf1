"""Claims about `osprey prelabel` with a real Label Studio, which stores, counts and shows the predictions."""

from __future__ import annotations

from label_config.reader import read_label_config
from label_config.ready_configs import BITMASK as CONFIG
from label_config.validate import validate_results
from tests.e2e.targets import scene_with


def test_a_project_is_pre_annotated_once_and_opens_with_its_regions(stack, window):
    """Tasks get predictions with version, scores and parts, which the page shows; a second run adds none."""
    scene, target = scene_with(0)
    project = stack.make_project("e2e prelabel", CONFIG.read_text(), [scene.image, b"no image", scene.image])
    broken = project.task_ids[1]
    ran = stack.command("osprey", "prelabel", "--project", str(project.id), "--max-regions", "8", check=False)
    assert ran.returncode == 1, ran.stdout
    assert f"task {broken}:" in ran.stdout
    with stack.api() as api:
        predictions = api.call("GET", "/api/predictions", params={"project": project.id})
        served = {one["task"]: one for one in predictions}
        assert set(served) == {project.task_ids[0], project.task_ids[2]}
        assert len(predictions) == 2
        for one in predictions:
            assert one["model_version"].startswith("osprey-nano@")
            assert 0 < one["score"] <= 1
            assert validate_results(read_label_config(CONFIG.read_text()), one["result"]) == []
            assert any("parentID" in item for item in one["result"])
            assert any(item["value"].get("text") == [target.category] for item in one["result"])
        ids = sorted(one["id"] for one in predictions)
        again = stack.command(
            "osprey",
            "prelabel",
            "--project",
            str(project.id),
            "--tasks",
            f"{project.task_ids[0]},{project.task_ids[2]}",
        )
        assert "2 were before" in " ".join(again.stdout.split())
        after = api.call("GET", "/api/predictions", params={"project": project.id})
        assert sorted(one["id"] for one in after) == ids
        version = predictions[0]["model_version"]
        api.call(
            "PATCH", f"/api/projects/{project.id}", json={"show_collab_predictions": True, "model_version": version}
        )
    page = window()
    page.open_task(project.id, project.task_ids[0])
    num_regions = len({item["id"] for item in served[project.task_ids[0]]["result"]})
    regions = page.wait_for_masks(num_regions)
    assert all(region.origin == "prediction" for region in regions)
    page.shot("pre-annotated")
