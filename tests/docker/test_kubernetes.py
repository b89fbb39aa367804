"""The Kubernetes objects: their schemas, that they fit each other, and that they fit trtjob."""

from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import redis
import yaml
from terminal import ROOT

from trtjob.config import Settings, load_settings
from trtjob.queue.embedded_server import EmbeddedServer
from trtjob.queue.rq_queue import WorkQueue

K8S = ROOT / "docker" / "k8s"
VERSION = "1.37"
Manifests = dict[str, dict[str, Any]]
CORE = ("ConfigMap", "Deployment", "Namespace", "PersistentVolumeClaim", "PodDisruptionBudget", "Secret")


def closed(required: str, **properties: Any) -> dict[str, Any]:
    """Return the schema of an object that has these properties and no others."""
    return {
        "type": "object",
        "additionalProperties": False,
        "required": required.split(),
        "properties": properties,
    }


NAME, COUNT = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 0}
# The part of KEDA's definitions (keda.sh/v1alpha1) that is used here. Unlike the cluster, which drops a field that it
# does not know, this refuses it.
KEDA = {
    "ScaledObject": closed(
        "scaleTargetRef triggers",
        scaleTargetRef=closed("name", name=NAME),
        minReplicaCount=COUNT,
        maxReplicaCount=COUNT,
        pollingInterval=COUNT,
        cooldownPeriod=COUNT,
        advanced=closed(
            "", horizontalPodAutoscalerConfig=closed("", behavior=closed("", scaleDown={"type": "object"}))
        ),
        triggers={
            "type": "array",
            "items": closed(
                "type metadata",
                type={"const": "redis"},
                # All of these are strings, numbers too.
                metadata=closed(
                    "addressFromEnv listName listLength",
                    addressFromEnv=NAME,
                    listName=NAME,
                    listLength={"type": "string", "pattern": r"^\d+$"},
                    activationListLength={"type": "string", "pattern": r"^\d+$"},
                    databaseIndex={"type": "string", "pattern": r"^\d+$"},
                    enableTLS={"enum": ["true", "false"]},
                ),
                authenticationRef=closed("name", name=NAME),
            ),
        },
    ),
    "TriggerAuthentication": closed(
        "secretTargetRef",
        secretTargetRef={
            "type": "array",
            "items": closed("parameter name key", parameter={"enum": ["username", "password"]}, name=NAME, key=NAME),
        },
    ),
}


def pod(manifests: Manifests) -> Any:
    return manifests["Deployment"]["spec"]["template"]["spec"]


def container(manifests: Manifests) -> Any:
    (only,) = pod(manifests)["containers"]
    return only


def variables(manifests: Manifests) -> dict[str, Any]:
    return {item["name"]: item.get("value", item.get("valueFrom")) for item in container(manifests)["env"]}


@pytest.mark.parametrize("kind", CORE)
def test_an_object_fits_the_schema_of_kubernetes(manifests: Manifests, kind: str) -> None:
    kubernetes_validate.validate(manifests[kind], VERSION, strict=True)


@pytest.mark.parametrize("kind", KEDA)
def test_an_object_of_keda_has_the_fields_that_keda_knows(manifests: Manifests, kind: str) -> None:
    assert manifests[kind]["apiVersion"] == "keda.sh/v1alpha1"
    jsonschema.validate(manifests[kind]["spec"], KEDA[kind])


def test_every_kind_is_checked(manifests: Manifests) -> None:
    assert manifests.keys() == {*CORE, *KEDA, "Kustomization"}


def test_all_files_are_applied_but_the_example_of_a_secret(manifests: Manifests) -> None:
    files = {path.name for path in K8S.glob("*.yaml")} - {"kustomization.yaml", "secret.example.yaml"}
    assert set(manifests["Kustomization"]["resources"]) == files


def test_the_secret_holds_no_password(manifests: Manifests) -> None:
    assert set(manifests["Secret"]["stringData"].values()) == {""}


def test_a_worker_has_one_gpu(manifests: Manifests) -> None:
    assert container(manifests)["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_a_worker_that_must_go_has_more_time_than_it_takes(manifests: Manifests) -> None:
    grace_s = float(manifests["ConfigMap"]["data"]["TRTJOB_GRACE_S"])
    assert pod(manifests)["terminationGracePeriodSeconds"] >= grace_s + 10


def test_what_is_set_are_settings(manifests: Manifests, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [name for name in manifests["ConfigMap"]["data"] if name.startswith("TRTJOB_")]
    assert {name.removeprefix("TRTJOB_").lower() for name in names} <= Settings.model_fields.keys()
    for name in names:
        monkeypatch.setenv(name, manifests["ConfigMap"]["data"][name])
    monkeypatch.setenv("TRTJOB_REDIS_URL", variables(manifests)["TRTJOB_REDIS_URL"])
    monkeypatch.setenv("TRTJOB_THREADS", container(manifests)["resources"]["requests"]["cpu"])
    settings = load_settings()
    assert settings.home.is_relative_to(container(manifests)["volumeMounts"][0]["mountPath"])


def test_the_password_is_in_the_secret_alone(manifests: Manifests) -> None:
    assert list(variables(manifests))[:2] == ["QUEUE_ADDRESS", "QUEUE_PASSWORD"]  # a value may name earlier ones only
    assert variables(manifests)["TRTJOB_REDIS_URL"] == "redis://:$(QUEUE_PASSWORD)@$(QUEUE_ADDRESS)/0"
    reference = variables(manifests)["QUEUE_PASSWORD"]["secretKeyRef"]
    (target,) = manifests["TriggerAuthentication"]["spec"]["secretTargetRef"]
    for place in (reference, target):
        assert place["name"] == manifests["Secret"]["metadata"]["name"]
        assert place["key"] in manifests["Secret"]["stringData"]


def test_keda_looks_at_the_list_in_which_the_messages_wait(manifests: Manifests, tmp_path: Path) -> None:
    (trigger,) = manifests["ScaledObject"]["spec"]["triggers"]
    assert trigger["metadata"]["addressFromEnv"] in variables(manifests)
    with EmbeddedServer(tmp_path / "server") as server:
        client = redis.Redis.from_url(server.url)
        WorkQueue(client, manifests["ConfigMap"]["data"]["TRTJOB_QUEUE"]).put("job-1a2b3c4d", ["plan"])
        assert client.llen(trigger["metadata"]["listName"]) == 1


def test_keda_waits_longer_than_a_shard_before_it_ends_a_worker(manifests: Manifests) -> None:
    advanced = manifests["ScaledObject"]["spec"]["advanced"]["horizontalPodAutoscalerConfig"]
    grace_s = pod(manifests)["terminationGracePeriodSeconds"]
    assert advanced["behavior"]["scaleDown"]["stabilizationWindowSeconds"] >= grace_s


def test_the_objects_name_each_other(manifests: Manifests) -> None:
    labels = manifests["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert manifests["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert manifests["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert manifests["ScaledObject"]["spec"]["scaleTargetRef"]["name"] == manifests["Deployment"]["metadata"]["name"]
    (trigger,) = manifests["ScaledObject"]["spec"]["triggers"]
    assert trigger["authenticationRef"]["name"] == manifests["TriggerAuthentication"]["metadata"]["name"]
    (source,) = container(manifests)["envFrom"]
    assert source["configMapRef"]["name"] == manifests["ConfigMap"]["metadata"]["name"]
    claims = [
        volume["persistentVolumeClaim"]["claimName"] for volume in pod(manifests)["volumes"] if "emptyDir" not in volume
    ]
    assert claims == [manifests["PersistentVolumeClaim"]["metadata"]["name"]]


def test_a_pod_runs_what_the_compose_file_runs(manifests: Manifests, services: dict[str, Any]) -> None:
    """Its arguments and its probes are tried there."""
    assert container(manifests)["args"] == services["gpu-worker"]["command"]
    probes = {name: container(manifests)[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")}
    assert {name: probe["path"] for name, probe in probes.items()} == {
        "startup": "/livez",
        "readiness": "/readyz",
        "liveness": "/livez",
    }
    (port,) = container(manifests)["ports"]
    assert {probe["port"] for probe in probes.values()} == {port["name"]}


def test_a_pod_is_asked_where_the_image_answers(manifests: Manifests, stages: dict[str, Any]) -> None:
    (port,) = container(manifests)["ports"]
    assert ("EXPOSE", str(port["containerPort"])) in stages["gpu"]


def test_a_pod_runs_as_the_user_of_the_image(manifests: Manifests, stages: dict[str, Any]) -> None:
    (user,) = [rest for keyword, rest in stages["gpu"] if keyword == "USER"]
    context = pod(manifests)["securityContext"]
    assert f"{context['runAsUser']}:{context['runAsGroup']}" == user
    assert context["runAsNonRoot"] is True


def test_what_a_container_writes_has_a_place(manifests: Manifests) -> None:
    assert container(manifests)["securityContext"]["readOnlyRootFilesystem"] is True
    assert [mount["mountPath"] for mount in container(manifests)["volumeMounts"]] == ["/data", "/tmp"]


def test_the_schemas_are_those_of_a_version_that_refuses_what_it_does_not_know(manifests: Manifests) -> None:
    wrong = yaml.safe_load(yaml.safe_dump(manifests["Deployment"]))
    wrong["spec"]["template"]["spec"]["terminationGracePeriod"] = 300
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSION, strict=True)
