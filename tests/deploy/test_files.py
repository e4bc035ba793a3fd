"""Every file of deploy/ is read, by the tool that its user has, in a test that is named here."""

from pathlib import Path

import pytest

from harness import REPOSITORY

DEPLOY = REPOSITORY / "deploy"
# A pattern, and the test that reads what it fits.
READ = {
    "image/Containerfile": "test_image.py::test_the_image_says_what_it_is_and_who_runs_in_it",
    "image/worker.Containerfile": "test_image.py::test_a_worker_beats_and_its_probes_pass",
    "compose/compose.yaml": "test_compose.py::test_docker_compose_reads_it",
    "compose/checker.toml": "test_compose.py::test_the_configuration_is_one_without_a_mistake",
    "kubernetes/base/*.yaml": "test_kubernetes.py::test_all_that_is_rendered_is_valid",
    "kubernetes/base/checker.toml": "test_kubernetes.py::test_the_configuration_is_one_without_a_mistake",
    "kubernetes/overlays/*/*.yaml": "test_kubernetes.py::test_all_that_is_rendered_is_valid",
    "kubernetes/overlays/daemonset/heartbeat.conf": "test_kubernetes.py::test_the_node_is_prepared_by_systemds_own_tool",
    "helm/Chart.yaml": "test_kubernetes.py::test_the_chart_is_without_a_finding_of_helms_linter",
    "helm/values.yaml": "test_kubernetes.py::test_the_chart_takes_every_value_that_it_names",
    "helm/values.schema.json": "test_kubernetes.py::test_the_chart_refuses_values_that_mean_nothing",
    "helm/checker.toml": "test_kubernetes.py::test_the_chart_holds_the_same_configuration_as_the_base",
    "helm/templates/*": "test_kubernetes.py::test_the_chart_makes_the_same_as_kustomize",
    "systemd/*.service": "test_systemd.py::test_systemd_takes_every_unit",
    "systemd/*.socket": "test_systemd.py::test_systemd_takes_every_unit",
    "systemd/*.timer": "test_systemd.py::test_systemd_takes_every_unit",
    "proxies/nginx.conf": "test_proxies.py::test_the_proxy_takes_its_page_and_not_a_wrong_one",
    "proxies/haproxy.cfg": "test_proxies.py::test_the_proxy_takes_its_page_and_not_a_wrong_one",
    "proxies/Caddyfile": "test_proxies.py::test_the_proxy_takes_its_page_and_not_a_wrong_one",
    "proxies/traefik*.yml": "test_proxies.py::test_traefik_refuses_a_page_with_a_wrong_word",
    "prometheus/prometheus.yml": "test_prometheus.py::test_promtool_takes_the_configuration_and_the_rules",
    "prometheus/rules.yml": "test_prometheus.py::test_promtool_takes_the_configuration_and_the_rules",
    "prometheus/rules_test.yml": "test_prometheus.py::test_the_rules_pass_their_own_tests_and_every_alert_has_one",
    "prometheus/checker.toml": "test_prometheus.py::test_alerts_fire_and_resolve_and_all_that_is_asked_for_is_served",
    "grafana/heartbeat.json": "test_prometheus.py::test_the_dashboard_has_what_grafana_needs",
    "nagios/*.cfg": "test_nagios.py::test_nagios_takes_the_definitions_and_runs_them",
    "nagios/icinga2.conf": "test_nagios.py::test_icinga_takes_the_configuration_and_runs_it",
    "README.md": "test_files.py::test_every_page_is_among_those_whose_blocks_are_run",
    "*/README.md": "test_files.py::test_every_page_is_among_those_whose_blocks_are_run",
}


def files():
    return [path for path in sorted(DEPLOY.rglob("*")) if path.is_file()]


def test_every_file_is_read_in_a_test():
    read = {path for pattern in READ for path in DEPLOY.glob(pattern)}
    assert [str(path.relative_to(DEPLOY)) for path in files() if path not in read] == []


@pytest.mark.parametrize("pattern", READ)
def test_what_reads_a_file_is_there(pattern):
    assert list(DEPLOY.glob(pattern)), f"{pattern} fits no file"
    module, _, name = READ[pattern].partition("::")
    assert f"\ndef {name}(" in (Path(__file__).parent / module).read_text()


def test_every_manifest_is_named_by_its_kustomization():
    """One that is not is rendered by nobody."""
    import yaml

    for settings in (DEPLOY / "kubernetes").rglob("kustomization.yaml"):
        document = yaml.safe_load(settings.read_text())
        named = {*document["resources"], *(patch["path"] for patch in document.get("patches", []))}
        assert {path.name for path in settings.parent.glob("*.yaml")} - {settings.name} == {name for name in named if name.endswith(".yaml")}


def test_every_page_is_among_those_whose_blocks_are_run():
    from test_commands import PAGES

    assert {path for path in files() if path.suffix == ".md"} <= set(PAGES)
