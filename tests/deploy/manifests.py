"""Renders deploy/kubernetes and deploy/helm with the tools that their users have, and reads what comes out.

Kustomize is kubectl's own. Debian's kubectl may be too old for it (1.20 holds kustomize 2.0): then `kustomize` below takes its place, a
strict renderer of just the features that are used here, which a test compares with the real one wherever that is. Helm is Helm's own
library (`helm-python-sdk`, its official Go packages); a test compares it with the command.
"""

import copy
import functools
import json
import re
import shutil
import subprocess

import yaml

from harness import REPOSITORY

KUBERNETES = REPOSITORY / "deploy" / "kubernetes"
CHART = REPOSITORY / "deploy" / "helm"
OVERLAYS = ["base", *sorted(f"overlays/{path.name}" for path in (KUBERNETES / "overlays").iterdir())]
# Each overlay, by the chart's values.
VALUES = {
    "base": {},
    "overlays/daemonset": {"agent": "daemonset"},
    "overlays/endpoint": {"worker": {"probes": "endpoint"}},
    "overlays/grpc": {"health": {"probes": "grpc"}},
    "overlays/sidecar": {"agent": "sidecar"},
}


def documents(text):
    return [document for document in yaml.safe_load_all(text) if document]


@functools.cache
def kubectl():
    """The command, where it holds a kustomize of version 5 or later."""
    if not (program := shutil.which("kubectl")):
        return None
    told = subprocess.run([program, "version", "--client", "--output=json"], capture_output=True, text=True, check=False).stdout
    version = json.loads(told or "{}").get("kustomizeVersion", "v0")
    return program if int(re.match(r"v(\d+)", version)[1]) >= 5 else None


@functools.cache
def _rendered(overlay):
    if program := kubectl():
        done = subprocess.run([program, "kustomize", KUBERNETES / overlay], capture_output=True, text=True, check=False)
        assert done.returncode == 0 and not done.stderr, done.stderr
        return documents(done.stdout)
    return kustomize(KUBERNETES / overlay)


def rendered(overlay):
    return copy.deepcopy(_rendered(overlay))


def chart(values, name="orders", namespace="orders"):
    """What `helm template` gives, without the notes."""
    from helm_python.chart import Chart

    with Chart.load(CHART) as loaded:
        files = loaded.render(values=values, name=name, namespace=namespace)
    return [document for path, text in sorted(files.items()) if path.endswith(".yaml") for document in documents(text)]


def pods(objects):
    """The pods that these objects make, by kind and name."""
    for item in objects:
        if item["kind"] in ("Deployment", "DaemonSet"):
            yield f"{item['kind']}/{item['metadata']['name']}", item["spec"]["template"]


def containers(pod):
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


# --- kustomize, as far as it is used here -------------------------------------------------------------------------

KNOWN = {"apiVersion", "kind", "namespace", "labels", "resources", "configMapGenerator", "images", "patches"}
CLUSTER_SCOPED = {"Namespace", "PersistentVolume"}
# What tells the members of a list apart, by the list's name.
KEYS = {"containers": "name", "initContainers": "name", "env": "name", "volumes": "name", "volumeMounts": "mountPath", "ports": "containerPort"}


def kustomize(folder):
    settings = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert set(settings) <= KNOWN, set(settings) - KNOWN
    objects = []
    for resource in settings["resources"]:
        path = folder / resource
        objects += kustomize(path) if path.is_dir() else documents(path.read_text())
    for patch in settings.get("patches", []):
        for change in documents((folder / patch["path"]).read_text()):
            same = [item for item in objects if (item["kind"], item["metadata"]["name"]) == (change["kind"], change["metadata"]["name"])]
            assert len(same) == 1, f"{patch}: {len(same)} objects"
            merge(same[0], change)
    for generator in settings.get("configMapGenerator", []):
        data = {name: (folder / name).read_text() for name in generator["files"]}
        objects.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": generator["name"]}, "data": data})
    tags = {image["name"]: image["newTag"] for image in settings.get("images", [])}
    for item in objects:
        metadata = item["metadata"]
        if "namespace" in settings and item["kind"] not in CLUSTER_SCOPED:
            metadata["namespace"] = settings["namespace"]
        for labels in settings.get("labels", []):
            metadata["labels"] = metadata.get("labels", {}) | labels["pairs"]
    for _, pod in pods(objects):
        for container in containers(pod):
            name = container["image"].partition(":")[0]
            if name in tags:
                container["image"] = f"{name}:{tags[name]}"
    return objects


def merge(target, change):
    """A strategic merge: members of lists by their key, null for what goes."""
    for name, value in change.items():
        if value is None:
            target.pop(name, None)
        elif isinstance(value, dict):
            merge(target.setdefault(name, {}), value)
        elif isinstance(value, list) and name in KEYS:
            merge_list(target.setdefault(name, []), value, KEYS[name])
        else:
            target[name] = value


def merge_list(target, change, key):
    for member in change:
        found = [item for item in target if item[key] == member[key]]
        if member.get("$patch") == "delete":
            target.remove(found[0])
        elif found:
            merge(found[0], member)
        else:
            target.append(copy.deepcopy(member))


# --- what is the same, whoever rendered it ----------------------------------------------------------------------

OWN_LABELS = ("app.kubernetes.io/instance", "app.kubernetes.io/managed-by", "app.kubernetes.io/part-of", "helm.sh/chart")


def same(objects, release="orders"):
    """By kind and name, without what only names where it comes from; so that two ways to the same can be compared."""
    found = {}
    for item in objects:
        if item["kind"] == "Namespace":
            continue
        item = strip(copy.deepcopy(item), release)
        item["metadata"].pop("namespace", None)
        found[f"{item['kind']}/{item['metadata']['name']}"] = item
    return found


def strip(value, release):
    if isinstance(value, list):
        named = [strip(item, release) for item in value]
        # The order of environment, ports and volumes says nothing here.
        return sorted(named, key=lambda item: json.dumps(item, sort_keys=True)) if all(isinstance(i, dict) for i in named) else named
    if isinstance(value, str):
        # A name that the release begins, or that kustomize's hash ends.
        value = re.sub(rf"^({release}-)+", "", value)
        return re.sub(r"^(checker)-[0-9a-z]{10}$", r"\1", value)
    if not isinstance(value, dict):
        return value
    kept = {}
    for name, member in value.items():
        if name in OWN_LABELS or name == "checksum/configuration":
            continue
        member = strip(member, release)
        if member == {} and name in ("labels", "annotations", "podSelector"):
            continue
        kept[name] = member
    # The chart labels each object with its component, as the base does where something selects by it.
    labels = kept.get("labels")
    if isinstance(labels, dict) and "name" in kept:
        labels.pop("app.kubernetes.io/name", None)
        if not labels:
            del kept["labels"]
    # What is left out there: nothing, which selects everything.
    if kept.get("podSelector") == {"matchLabels": {}}:
        del kept["podSelector"]
    return kept


# --- the arithmetic beside the thresholds -------------------------------------------------------------------------

TUNE = re.compile(r"(?m)^ *# checker tune (?P<options>.+)\n(?P<lines>(?: *#   \w+: .+\n)+)(?=(?P<probe>(?:.*\n){1,12}))")
LINE = re.compile(r"#   (\w+): +(\d+) s at worst = +(.+)")


def thresholds(text):
    """Each comment of what a probe's settings amount to: options, what it says, and the settings that stand below it."""
    for match in TUNE.finditer(text):
        settings = {name: re.search(rf"(?m)^ +{name}: (\d+)$", match["probe"]) for name in ("periodSeconds", "timeoutSeconds", "failureThreshold")}
        assert all(settings.values()), f"no probe below:\n{match[0]}"
        yield match["options"].split(), lines(match["lines"]), [int(found[1]) for found in settings.values()]


def checked(checker, options, lines, probe):
    """What stands beside a probe is what `checker tune` says of just these settings: period, timeout and failures."""
    told = subprocess.run([checker, "tune", *options, "--format", "json"], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    answer = json.loads(told.stdout)
    assert lines, "nothing is said"
    for name, (worst, sum_) in lines.items():
        assert worst == sum_, f"{name}: the sum is {sum_}"
        assert worst * 1000 == answer[name]["worst_ms"], name
    assert [seconds * 1000 for seconds in probe[:2]] == [answer["period_ms"], answer["probe_timeout_ms"]]
    assert probe[2] == answer["failures"]


def lines(text):
    return {name: (int(worst), arithmetic(sum_)) for name, worst, sum_ in LINE.findall(text)}


def arithmetic(text):
    """`30 s + 2 × 10 s + 6 s`, worked out."""
    total = 0
    for term in text.split("+"):
        factors = [int(number) for number in re.findall(r"\d+", term)]
        product = 1
        for factor in factors:
            product *= factor
        total += product
    return total
