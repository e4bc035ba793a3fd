"""deploy/kubernetes and deploy/helm: rendered, valid in several versions of Kubernetes, restricted, the same; thresholds as stated."""

import json
import re
import subprocess

import pytest
import yaml

import harness
from harness import REPOSITORY
from manifests import CHART, KUBERNETES, OVERLAYS, VALUES, chart, checked, containers, documents, kubectl, kustomize, pods, rendered, same, thresholds
from running import program

# One process renders everything, once.
pytestmark = pytest.mark.xdist_group("manifests")

# preStop.sleep is from 1.30 on; the last is the newest that the schemas are there of.
VERSIONS = ["1.30", "1.32", "1.34", "1.37"]
WAYS = [*OVERLAYS, *(f"helm {overlay}" for overlay in OVERLAYS)]


def objects(way):
    return chart(VALUES[way.removeprefix("helm ")]) if way.startswith("helm ") else rendered(way)


every_way = pytest.mark.parametrize("way", WAYS)


@pytest.mark.parametrize("version", VERSIONS)
def test_all_that_is_rendered_is_valid(version):
    import kubernetes_validate

    # Most objects are the same in most ways.
    different = {json.dumps(item): item for way in WAYS for item in objects(way)}
    assert len(different) > 20
    for item in different.values():
        assert kubernetes_validate.validate(item, version, strict=True) == version


def test_the_schemas_tell_what_is_wrong():
    import kubernetes_validate

    worker = next(item for item in rendered("base") if item["kind"] == "Deployment" and item["metadata"]["name"] == "worker")
    worker["spec"]["template"]["spec"]["containers"][0]["livenessProbe"]["periodSecond"] = 10
    with pytest.raises(kubernetes_validate.ValidationError, match="periodSecond"):
        kubernetes_validate.validate(worker, "1.34", strict=True)


@every_way
def test_every_pod_keeps_the_restricted_standard(way):
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/, and what goes beyond it here."""
    for name, pod in pods(objects(way)):
        assert violations(pod) == [], name
        assert pod["spec"]["automountServiceAccountToken"] is False
        for container in containers(pod):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["resources"]["limits"]["memory"] and container["resources"]["requests"]["cpu"]
            assert re.search(r":[\w.]+$", container["image"]), "a tag that is not always the latest"


VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def violations(pod):
    """What the restricted standard would refuse this pod for."""
    spec, found = pod["spec"], []
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(key):
            found.append(key)
    found += [f"volume {v['name']}" for v in spec.get("volumes", []) if not (set(v) - {"name"}) <= VOLUMES]
    whole = spec.get("securityContext", {})
    found += [key for key in ("sysctls", "seLinuxOptions", "appArmorProfile", "windowsOptions") if key in whole]
    for container in containers(pod):
        own = container.get("securityContext", {})
        capabilities = own.get("capabilities", {})
        rules = {
            "privileged": not own.get("privileged"),
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
            "runAsNonRoot": own.get("runAsNonRoot", whole.get("runAsNonRoot")) is True,
            "runAsUser": own.get("runAsUser", whole.get("runAsUser")) != 0,
            "seccomp": own.get("seccompProfile", whole.get("seccompProfile", {})).get("type") in ("RuntimeDefault", "Localhost"),
            "drop": "ALL" in capabilities.get("drop", []),
            "add": set(capabilities.get("add", [])) <= {"NET_BIND_SERVICE"},
            "procMount": own.get("procMount", "Default") == "Default",
            "hostPort": not any(port.get("hostPort") for port in container.get("ports", [])),
            "seLinux": "seLinuxOptions" not in own,
            "probe host": not any("host" in container.get(probe, {}).get("httpGet", {}) for probe in PROBES),
        }
        found += [f"{container['name']}: {rule}" for rule, kept in rules.items() if not kept]
    return found


PROBES = ("livenessProbe", "readinessProbe", "startupProbe")


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("hostPID",), True, "hostPID"),
        (("volumes", 0, "hostPath"), {"path": "/run"}, "volume beats"),
        (("securityContext", "runAsNonRoot"), False, "worker: runAsNonRoot"),
        (("securityContext", "seccompProfile"), {}, "worker: seccomp"),
        (("containers", 0, "securityContext", "capabilities", "drop"), ["NET_RAW"], "worker: drop"),
        (("containers", 0, "securityContext", "allowPrivilegeEscalation"), True, "worker: allowPrivilegeEscalation"),
    ],
)
def test_what_is_not_restricted_is_seen(path, value, told):
    pod = dict(pods(rendered("base")))["Deployment/worker"]
    *way, last = path
    place = pod["spec"]
    for step in way:
        place = place[step]
    place[last] = value
    assert violations(pod) == [told]


@every_way
def test_a_variable_refers_to_one_that_stands_before_it(way):
    """Else Kubernetes leaves the reference as it is. Kustomize puts the variables of a patch before the others."""
    for _, pod in pods(objects(way)):
        for container in containers(pod):
            before = set()
            for variable in container.get("env", []):
                assert set(re.findall(r"\$\((\w+)\)", variable.get("value", ""))) <= before
                before.add(variable["name"])


@every_way
def test_what_refers_to_another_object_finds_it(way):
    there = {(item["kind"], item["metadata"]["name"]) for item in objects(way)}
    selected = [item["metadata"]["labels"] for _, item in pods(objects(way))]
    for _, pod in pods(objects(way)):
        for volume in pod["spec"].get("volumes", []):
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in there
            if "persistentVolumeClaim" in volume:
                assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in there
        for container in containers(pod):
            mounts = {mount["name"] for mount in container.get("volumeMounts", [])}
            assert mounts <= {volume["name"] for volume in pod["spec"].get("volumes", [])}
    for item in objects(way):
        spec = item.get("spec", {})
        selector = spec.get("podSelector", spec.get("selector"))
        if item["kind"] in ("NetworkPolicy", "PodDisruptionBudget", "Service") and selector:
            labels = selector.get("matchLabels", selector)
            assert any(labels.items() <= pod.items() for pod in selected), f"{item['kind']} {item['metadata']['name']} selects nobody"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_chart_makes_the_same_as_kustomize(overlay):
    assert same(chart(VALUES[overlay])) == same(rendered(overlay))


if kubectl():
    # Where there is none, the substitute stands for it in the other tests, and conftest.py says so.

    @pytest.mark.parametrize("overlay", OVERLAYS)
    def test_the_substitute_for_kustomize_makes_what_kustomize_makes(overlay):
        assert same(kustomize(KUBERNETES / overlay)) == same(rendered(overlay))


def test_the_chart_is_without_a_finding_of_helms_linter():
    from helm_python.chart import lint

    for values in VALUES.values():
        found = lint(CHART, values, strict=True, namespace="orders")
        assert found["total_charts_linted"] == 1 and found["errors"] == [], found
        assert [message for message in found["messages"] if message["severity"] > 1] == []


def helm(*words, values):
    told = [program("helm"), *words, "--namespace", "orders", "--values", "-"]
    return subprocess.run([str(word) for word in told], input=yaml.safe_dump(values), capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_command_helm_makes_what_its_library_makes_and_finds_nothing(overlay):
    values = VALUES[overlay]
    made = helm("template", "orders", CHART, values=values)
    assert made.returncode == 0, made.stderr
    assert same(documents(made.stdout)) == same(chart(values))
    found = helm("lint", "--strict", CHART, values=values)
    assert found.returncode == 0 and "0 chart(s) failed" in found.stdout, found
    refused = helm("template", "orders", CHART, values={"wroker": {}})
    assert refused.returncode != 0 and "wroker" in refused.stderr, refused


@pytest.mark.parametrize("values", [{"agent": "every"}, {"worker": {"promise": "30"}}, {"wroker": {}}, {"health": {"probes": "tcp"}}])
def test_the_chart_refuses_values_that_mean_nothing(values):
    from helm_python.errors import HelmValuesError

    with pytest.raises(HelmValuesError):
        chart(values)


def test_the_chart_takes_every_value_that_it_names():
    """Each is changed, and something in what is rendered changes."""
    plain = json.dumps(chart({"agent": "daemonset"}))
    for path, value in leaves(yaml.safe_load((CHART / "values.yaml").read_text())):
        if path in (("agent",), ("worker", "probes"), ("health", "probes")):
            continue
        changed = {"env": [{"name": "MORE", "value": "1"}], "configuration": "[service]\nname = 'x'\n"}.get(path[-1])
        if changed is None:
            changed = value + 1 if isinstance(value, int) else re.sub(r"\d+", "7", value) if re.search(r"\d", value) else value + "x"
        values = {"agent": "daemonset"}
        place = values
        for step in path[:-1]:
            place = place.setdefault(step, {})
        place[path[-1]] = changed
        assert json.dumps(chart(values)) != plain, f"{'.'.join(path)} changes nothing"


def leaves(tree, path=()):
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, name))
        else:
            yield (*path, name), value


def test_two_releases_do_not_meet():
    ones, others = chart({"agent": "daemonset"}, "one", "a"), chart({"agent": "daemonset"}, "two", "b")
    names = [{(item["kind"], item["metadata"]["name"]) for item in release} for release in (ones, others)]
    assert not names[0] & names[1]


def test_the_chart_holds_the_same_configuration_as_the_base():
    assert (CHART / "checker.toml").read_text() == (KUBERNETES / "base" / "checker.toml").read_text()


def test_the_configuration_is_one_without_a_mistake():
    secret = {name: f"{scheme}://me:S3cret@data" for name, scheme in SECRET.items()}
    command = [harness.CHECKER, "validate", "--config", KUBERNETES / "base" / "checker.toml"]
    done = subprocess.run(command, env=harness.environment(**secret), capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.endswith(": no mistakes\n"), done.stdout + done.stderr


SECRET = {"REDIS_URL": "redis", "HEARTBEAT_REDIS_URL": "redis", "DATABASE_URL": "postgresql", "RABBITMQ_URL": "amqp"}


@every_way
def test_no_key_of_the_secret_is_asked_for_that_the_page_does_not_name(way):
    for _, pod in pods(objects(way)):
        for container in containers(pod):
            for variable in container.get("env", []):
                if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
                    assert reference["name"] == "orders" and reference["key"] in SECRET


# --- thresholds -----------------------------------------------------------------------------------------------------

FILES = [path for path in sorted([*KUBERNETES.rglob("*.yaml"), CHART / "values.yaml"]) if "checker tune" in path.read_text()]


def stated():
    for path in FILES:
        for options, told, probe in thresholds(path.read_text()):
            yield pytest.param(options, told, probe, id=f"{path.relative_to(REPOSITORY)} {' '.join(options)}")


@pytest.mark.parametrize(("options", "told", "probe"), list(stated()))
def test_the_arithmetic_beside_a_threshold_is_what_checker_tune_says(options, told, probe):
    checked(harness.CHECKER, options, told, probe)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_probe_says_what_it_amounts_to(path):
    text = path.read_text()
    probes = len(re.findall(r"(?m)^ +failureThreshold: ", text))
    sums = len(list(thresholds(text))) + len(startup(text))
    assert probes == sums


def startup(text):
    """The time that a start may take: the sum beside it, and what stands below."""
    found = re.findall(r"It may take (\d+) min = (\d+) × (\d+) s.*\n(?:.*\n){1,7}?.*periodSeconds: (\d+)\n.*timeoutSeconds: \d+\n.*failureThreshold: (\d+)", text)
    for minutes, times, seconds, period, failures in found:
        assert (times, seconds) == (failures, period) and int(minutes) * 60 == int(times) * int(seconds)
    return found


@every_way
def test_the_worker_beats_as_its_thresholds_take_for_granted(way):
    """The promise and the budget in the sums are those in the worker's environment."""
    pod = dict(pods(objects(way)))["Deployment/orders-worker" if way.startswith("helm") else "Deployment/worker"]
    environment = {variable["name"]: variable.get("value") for variable in pod["spec"]["containers"][0]["env"]}
    text = (KUBERNETES / "base" / "worker.yaml").read_text()
    for options, _, _ in thresholds(text):
        given = dict(zip(options[::2], options[1::2]))
        assert given["--interval"] == environment["HEARTBEAT_INTERVAL"]
        assert given["--promise"] == environment["HEARTBEAT_PROMISE"]
        assert given["--budget"] == environment["HEARTBEAT_LOOP_BUDGET"]


def test_the_grace_periods_are_their_sums():
    worker, health = ((KUBERNETES / "base" / name).read_text() for name in ("worker.yaml", "health.yaml"))
    total, drain, rest = map(int, re.search(r"# (\d+) s = the worker's drain deadline \((\d+) s\) \+ (\d+) s", worker).groups())
    source = (REPOSITORY / "heartbeat" / "examples" / "worker.rs").read_text()
    assert total == drain + rest and re.search(r"DRAIN_DEADLINE: Duration = Duration::from_mins\(1\)", source) and drain == 60
    assert f"terminationGracePeriodSeconds: {total}\n" in worker
    pattern = r"# (\d+) s = preStop \((\d+) s\) \+ drain \((\d+) s\) \+ the longest answer \((\d+) s\) \+ (\d+) s"
    total, sleep, drain, answer, rest = map(int, re.search(pattern, health).groups())
    configuration = (KUBERNETES / "base" / "checker.toml").read_text()
    assert total == sleep + drain + answer + rest
    assert f'drain = "{drain}s"' in configuration and f'timeout = "{answer}s"' in configuration
    assert f"terminationGracePeriodSeconds: {total}\n" in health and re.search(rf"sleep:\s+seconds: {sleep}\n", health)


def test_the_node_is_prepared_by_systemds_own_tool(tmp_path):
    file = KUBERNETES / "overlays" / "daemonset" / "heartbeat.conf"
    done = subprocess.run(["systemd-tmpfiles", "--create", f"--root={tmp_path}", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr
    folder = (tmp_path / "run" / "heartbeat").stat()
    assert (folder.st_mode & 0o7777, folder.st_uid, folder.st_gid) == (0o770, 65532, 65532)
    volume = next(item for item in documents((file.parent / "volume.yaml").read_text()) if item["kind"] == "PersistentVolume")
    assert volume["spec"]["hostPath"]["path"] == "/run/heartbeat"
