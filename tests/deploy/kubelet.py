"""What a kubelet does with a pod, as far as a container of podman's can show it: environment, volumes, users, rights, probes, end.

A container here is in a network of its own in which nothing else is, so that it can have the ports of its manifest; probes are asked
from within that network, as a kubelet asks from the pod's node. Servers are reached by a socket below /run/servers.
"""

import contextlib
import json
import re
import subprocess
import sys

from containers import Containers

GRPC = """
import sys, grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
with grpc.insecure_channel(f"127.0.0.1:{sys.argv[1]}") as channel:
    answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=sys.argv[2]), timeout=float(sys.argv[3]))
sys.exit(answer.status != health_pb2.HealthCheckResponse.SERVING)
"""


class Pod:
    """One container of a pod, started as its manifest says."""

    def __init__(self, containers: Containers, folder, objects, pod, name, image, secret, servers):
        self.containers, self.objects, self.folder = containers, objects, folder
        self.spec = next(item for item in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]] if item["name"] == name)
        self.grace = pod["spec"]["terminationGracePeriodSeconds"]
        whole, own = pod["spec"]["securityContext"], self.spec["securityContext"]
        options = ["--network=none", f"--user={whole['runAsUser']}:{whole['runAsGroup']}", f"--volume={servers}:/run/servers"]
        options += ["--read-only", "--read-only-tmpfs=false"] if own["readOnlyRootFilesystem"] else []
        options += [f"--cap-drop={capability}" for capability in own["capabilities"]["drop"]]
        options += [] if own["allowPrivilegeEscalation"] else ["--security-opt=no-new-privileges"]
        options += [f"--memory={memory.replace('Mi', 'm')}" for memory in [self.spec["resources"]["limits"]["memory"]]]
        options += [f"--env={name}={value}" for name, value in self.environment(secret).items()]
        options += [f"--volume={source}" for source in self.volumes(pod)]
        if command := self.spec.get("command"):
            options += ["--entrypoint", json.dumps(command)]
        self.id = containers.podman("run", "--detach", *options, image, *self.spec.get("args", [])).stdout.split()[-1]

    def environment(self, secret):
        found = dict(secret) if self.spec.get("envFrom") else {}
        for variable in self.spec.get("env", []):
            source = variable.get("valueFrom", {})
            value = variable.get("value", "worker-1" if "fieldRef" in source else None)
            if "secretKeyRef" in source:
                value = secret[source["secretKeyRef"]["key"]]
            found[variable["name"]] = re.sub(r"\$\((\w+)\)", lambda match: found[match[1]], value)
        return found

    def volumes(self, pod):
        volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
        for mount in self.spec["volumeMounts"]:
            volume = volumes[mount["name"]]
            if "configMap" in volume:
                source = self.folder / volume["configMap"]["name"]
                source.mkdir(exist_ok=True)
                data = next(item["data"] for item in self.objects if item["kind"] == "ConfigMap" and item["metadata"]["name"] == source.name)
                for name, text in data.items():
                    (source / name).write_text(text)
                yield f"{source}:{mount['mountPath']}:ro"
            else:
                # An emptyDir belongs to root, and to the pod's fsGroup, which may write to it; a node's folder as it was prepared.
                source = self.folder / mount["name"]
                if not source.exists():
                    source.mkdir(mode=0o770)
                    subprocess.run(["chown", "65532:65532" if "emptyDir" not in volume else "root:65532", source], check=True)
                    source.chmod(0o2770)
                yield f"{source}:{mount['mountPath']}"

    def asks(self, probe):
        """The status of one answer to the probe of this name: 0 passes."""
        settings = self.spec[probe]
        if action := settings.get("exec"):
            return self.containers.podman("exec", self.id, *action["command"], check=False).returncode
        timeout = str(settings["timeoutSeconds"])
        if action := settings.get("httpGet"):
            port = self.port(action["port"])
            return self.within("curl", "--silent", "--fail", "--max-time", timeout, f"http://127.0.0.1:{port}{action['path']}")
        action = settings["grpc"]
        return self.within(sys.executable, "-c", GRPC, str(action["port"]), action["service"], timeout)

    def port(self, port):
        return port if isinstance(port, int) else next(item["containerPort"] for item in self.spec["ports"] if item["name"] == port)

    def within(self, *command):
        """Runs a program of this machine in the pod's network."""
        enter = ["nsenter", f"--net=/proc/{self.pid()}/ns/net"]
        return subprocess.run([*enter, *command], capture_output=True, timeout=30, check=False).returncode

    def state(self):
        return json.loads(self.containers.podman("inspect", self.id).stdout)[0]["State"]

    def pid(self):
        return self.state()["Pid"]

    def logs(self):
        done = self.containers.podman("logs", self.id, check=False)
        return done.stdout + done.stderr

    def stop(self):
        """SIGTERM, and SIGKILL after the pod's grace period; gives the status."""
        self.containers.podman("stop", "--time", self.grace, self.id)
        return self.state()["ExitCode"]

    def end(self):
        with contextlib.suppress(AssertionError):
            self.containers.podman("rm", "--force", "--time", "0", self.id)
