"""The recipes in docs/recipes: they parse, name known fields, and call our commands by known options."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from engine.inference.config import DetectConfig
from utils.cli import parse

RECIPES = Path(__file__).parents[1] / "docs" / "recipes"
# of KubeRay's RayJob, ray.io/v1, as far as the recipe has to do with them
FIELDS = {
    "spec": {
        "entrypoint", "runtimeEnvYAML", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished",
        "rayClusterSpec",
        "backoffLimit", "activeDeadlineSeconds", "submissionMode", "suspend", "jobId", "metadata",
    },
    "cluster": {
        "rayVersion", "headGroupSpec", "workerGroupSpecs", "enableInTreeAutoscaling", "autoscalerOptions",
    },
    "head": {"rayStartParams", "template", "serviceType", "enableIngress"},
    "worker": {
        "groupName", "replicas", "minReplicas", "maxReplicas", "numOfHosts", "rayStartParams", "template",
        "scaleStrategy", "idleTimeoutSeconds",
    },
}  # fmt: skip


def test_the_kuberay_recipe_has_fields_of_a_rayjob_and_options_of_detect() -> None:
    job = yaml.safe_load((RECIPES / "kuberay.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    workers = cluster["workerGroupSpecs"]
    for values, kind in (
        (job["spec"], "spec"),
        (cluster, "cluster"),
        (cluster["headGroupSpec"], "head"),
        *((worker, "worker") for worker in workers),
    ):
        assert set(values) <= FIELDS[kind], kind
    for group in (cluster["headGroupSpec"], *workers):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
    yaml.safe_load(job["spec"]["runtimeEnvYAML"])
    python, script, *options = shlex.split(job["spec"]["entrypoint"])
    assert (python, script) == ("python", "detect.py")
    assert parse(DetectConfig, options).fleet.ray == "auto"


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_the_slurm_recipe_parses_and_has_options_of_detect() -> None:
    script = RECIPES / "slurm.sh"
    assert subprocess.run(["bash", "-n", str(script)]).returncode == 0
    calls = [
        line.split("detect.py ")[1] for line in script.read_text().splitlines() if "python detect.py" in line
    ]
    assert len(calls) == 2
    for call in calls:
        words = [word.replace("$address", "10.0.0.1:6379") for word in shlex.split(call) if word != "$@"]
        assert parse(DetectConfig, words).fleet.ray == "10.0.0.1:6379"
