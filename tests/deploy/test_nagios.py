"""deploy/nagios, taken by Nagios and Icinga 2 themselves, which then run the commands against a worker, a cluster and a server."""

import os
import pwd
import re
import subprocess

import pytest

import harness
from running import DEPLOY, Serve, copied, program

NAMES = ["Worker of the orders", "Fleet of the orders", "What this host needs", "What the web tier needs"]

CONFIGURATION = """
[subsets]
readiness = ["it"]
[checks.it]
type = "command"
command = ["test", "-e", "%s/good"]
"""


@pytest.fixture
def watched(start, broker, tmp_path):
    """One worker, in a cluster of its own, and a server whose only check is whether a file is there."""
    (tmp_path / "checker.toml").write_text(CONFIGURATION % tmp_path)
    cluster = f"nagios-{os.getpid()}-{tmp_path.name}"
    beat = ["--file", tmp_path / "beat", "--redis", broker.url, "--cluster", cluster, "--interval", "200ms", "--promise", "2s"]
    start(harness.Program, [harness.HEARTBEAT, "run", *beat, "--", "sleep", "600"])
    server = start(Serve, tmp_path / "checker.toml")
    return server, cluster


# --- Nagios ------------------------------------------------------------------------------------------------------------------

NAGIOS = """
cfg_file={0}/commands.cfg
cfg_file={0}/services.cfg
cfg_file={0}/objects.cfg
resource_file={0}/resource.cfg
nagios_user={1}
nagios_group={1}
interval_length=1
log_file={0}/log
lock_file={0}/lock
object_cache_file={0}/cache
precached_object_file={0}/precached
state_retention_file={0}/retention
status_file={0}/status
status_update_interval=1
temp_file={0}/temporary
temp_path={0}
check_result_path={0}/results
command_file={0}/command
query_socket={0}/query
check_for_updates=0
use_syslog=0
illegal_macro_output_chars=`~$&|'<>
"""

# What every Nagios has of its own.
OBJECTS = """
define timeperiod {
    timeperiod_name 24x7
    alias always
    %s
}
define command {
    command_name true
    command_line /bin/true
}
define contact {
    contact_name admin
    host_notifications_enabled 0
    service_notifications_enabled 0
    host_notification_period 24x7
    service_notification_period 24x7
    host_notification_commands true
    service_notification_commands true
}
define contactgroup {
    contactgroup_name admins
    alias admins
    members admin
}
define host {
    host_name web-1
    address 127.0.0.1
    check_command true
    max_check_attempts 1
    check_period 24x7
    notification_period 24x7
    contact_groups admins
}
""" % "\n    ".join(f"{day} 00:00-24:00" for day in ["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"])


def nagios(folder, broker, server, cluster):
    changes = {"/usr/local/bin/checker": harness.CHECKER, "/etc/checker/checker.toml": folder / "checker.toml", ":8080": f":{server.port}"}
    copied("nagios/commands.cfg", folder, changes)
    changes = {"/run/heartbeat/orders/worker": folder / "beat", "cluster!orders!2": f"cluster!{cluster}!1"}
    copied("nagios/services.cfg", folder, changes)
    (folder / "objects.cfg").write_text(OBJECTS)
    (folder / "resource.cfg").write_text(f"$USER5$={broker.url}\n")
    (folder / "results").mkdir()
    main = folder / "nagios.cfg"
    main.write_text(NAGIOS.format(folder, pwd.getpwuid(os.geteuid()).pw_name))
    return main


def states(file):
    """What Nagios knows of each service that it has looked at: the state's number, and what the plugin said."""
    if not file.exists():
        return {}
    found = {}
    for block in re.findall(r"servicestatus \{(.*?)\n\t\}", file.read_text(), re.S):
        of = dict(re.findall(r"(?m)^\t(\w+)=(.*)$", block))
        if of["has_been_checked"] == "1":
            found[of["service_description"]] = (int(of["current_state"]), of["plugin_output"], of["performance_data"])
    return found


def test_nagios_takes_the_definitions_and_runs_them(start, broker, tmp_path, watched):
    main = nagios(tmp_path, broker, *watched)
    done = subprocess.run([program("nagios4"), "-v", main], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and "Total Warnings: 0" in done.stdout and "Total Errors:   0" in done.stdout, done.stdout
    server = start(harness.Program, [program("nagios4"), main], cwd=tmp_path)
    told = lambda: states(tmp_path / "status")
    harness.until(lambda: set(told()) == set(NAMES), timeout=60, what=lambda: f"{told()} {server.output}")
    bad = {name: state for name, (state, *_) in told().items() if state}
    assert set(bad) == set(NAMES[2:]) and set(bad.values()) == {2}, told()
    (tmp_path / "good").touch()
    harness.until(lambda: all(state == 0 for state, *_ in told().values()), timeout=60, what=lambda: told())
    for name, (_, said, performance) in told().items():
        assert re.match(r"(HEARTBEAT|CHECKS) OK - ", said) and "=" in performance, (name, said, performance)
    # The password of a URL would be in no process list.
    assert "HEARTBEAT_REDIS_URL='$USER5$'" in (tmp_path / "commands.cfg").read_text()


# --- Icinga ------------------------------------------------------------------------------------------------------------------

ICINGA = """
include <itl>
const HeartbeatRedis = "{redis}"
object CheckerComponent "checker" {{}}
object PerfdataWriter "all" {{
  service_perfdata_path = "{folder}/service"
  host_perfdata_path = "{folder}/host"
  service_temp_path = "{folder}/service.now"
  host_temp_path = "{folder}/host.now"
  service_format_template = "$service.name$|$service.state_id$|$service.output$"
  rotation_interval = 1s
}}
object Host "web-1" {{
  check_command = "dummy"
  address = "127.0.0.1"
  vars.heartbeat_file = "{folder}/beat"
  vars.checker_subset = "readiness"
  vars.heartbeat_clusters["{cluster}"] = {{ heartbeat_min = 1, heartbeat_max_lost = 0 }}
}}
object Service "here" {{
  import "checker-service"
  host_name = "web-1"
  check_command = "checker-subset"
  vars.checker_subset = "readiness"
}}
"""


def test_icinga_takes_the_configuration_and_runs_it(start, broker, tmp_path, watched):
    server, cluster = watched
    changes = {"/usr/local/bin/checker": harness.CHECKER, "/etc/checker/checker.toml": tmp_path / "checker.toml", "8080": server.port}
    page = copied("nagios/icinga2.conf", tmp_path, changes | {"_interval = 1m": "_interval = 1s"})
    main = tmp_path / "main.conf"
    main.write_text(ICINGA.format(redis=broker.url, folder=tmp_path, cluster=cluster) + f'include "{page}"\n')
    user = pwd.getpwuid(os.geteuid()).pw_name
    constants = {"RunAsUser": user, "RunAsGroup": user}
    for name in ["DataDir", "InitRunDir", "LogDir", "CacheDir", "SpoolDir"]:
        (tmp_path / name).mkdir()
        constants[name] = tmp_path / name
    command = [program("icinga2"), "daemon", "-c", main, *(f"-D{name}={value}" for name, value in constants.items())]
    done = subprocess.run([str(word) for word in [*command, "-C"]], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and "warning" not in done.stdout and "Instantiated 4 Services" in done.stdout, done.stdout
    running = start(harness.Program, command, cwd=tmp_path)

    def told():
        files = sorted(tmp_path.glob("service.*[0-9]"), key=lambda file: file.stat().st_mtime_ns)
        lines = [line.split("|", 2) for file in files for line in file.read_text().splitlines() if line.count("|") >= 2]
        return {name: (state, said) for name, state, said in lines}

    harness.until(lambda: len(told()) == 4, timeout=90, what=lambda: f"{told()} {running.output[-2000:]}")
    assert {name for name, (state, _) in told().items() if state != "0"} == {"checks", "here"}, told()
    (tmp_path / "good").touch()
    harness.until(lambda: {state for state, _ in told().values()} == {"0"}, timeout=60, what=lambda: told())
    assert all(re.match(r"(HEARTBEAT|CHECKS) OK - ", said) for _, said in told().values()), told()


def test_the_times_that_the_pages_state_are_worked_out():
    page = (DEPLOY / "nagios/services.cfg").read_text()
    words = re.search(r"checker (tune .*)", page)[1].split()
    assert " ".join(words) in (DEPLOY / "nagios/icinga2.conf").read_text()
    told = subprocess.run([harness.CHECKER, *words], capture_output=True, text=True, check=True).stdout
    # 220 s, as people say it.
    assert re.search(r"no beat any more +worst +3\.6 min", told) and re.search(r"process is gone +worst +3\.1 min", told), told
    assert "within 220 s" in page and "within 190 s" in page
