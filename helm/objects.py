"""Judges rendered objects: Kubernetes' schemas, Pod Security `restricted`, names, and what a changed view restarts.

Arguments: versions of Kubernetes, kinds of others, the full golden with one view changed, all goldens.
"""

import sys
from pathlib import Path

import kubernetes_validate
import yaml

versions, foreign, changed, *goldens = sys.argv[1:]


def objects(path):
    return [one for one in yaml.safe_load_all(Path(path).read_text()) if one]


def name(one):
    return f"{one['kind']}/{one['metadata']['name']}"


def pod(one):
    """Returns the pod's specification in an object that has one."""
    if one["kind"] == "Pod":
        return one["spec"]
    return one.get("spec", {}).get("template", {}).get("spec")


def is_restricted(spec):
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted"""
    context = spec["securityContext"]
    volumes = {"configMap", "emptyDir", "secret", "projected", "persistentVolumeClaim", "downwardAPI", "csi", "ephemeral"}
    return (
        context["runAsNonRoot"]
        and context["runAsUser"] != 0
        and context["seccompProfile"]["type"] == "RuntimeDefault"
        and not any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC"))
        and all(volumes & volume.keys() for volume in spec["volumes"])
        and all(
            not container["securityContext"]["allowPrivilegeEscalation"]
            and container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            and container["securityContext"]["readOnlyRootFilesystem"]
            for container in spec["containers"]
        )
    )


for golden in goldens:
    for one in objects(golden):
        if one["kind"] not in foreign.split(","):
            for version in versions.split(","):
                kubernetes_validate.validate(one, version, strict=True)
        longest = 52 if one["kind"] == "StatefulSet" else 63
        assert len(one["metadata"]["name"]) <= longest, name(one)
        spec = pod(one)
        assert spec is None or is_restricted(spec), f"{golden}: {name(one)} is not `restricted`"

full = next(golden for golden in goldens if golden.endswith("full.yaml"))
before = {name(one): one for one in objects(full)}
after = {name(one): one for one in objects(changed)}
differ = [key for key in after if after[key] != before.get(key)]
assert differ == ["ConfigMap/a-name-that-is-so-long-ad9458-views"], f"a changed view changes {differ}"
