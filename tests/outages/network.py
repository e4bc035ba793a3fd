"""Hosts with a network and a clock of their own: namespaces that the test makes, names by its pid, and removes.

No interface of the machine itself is touched: every wire goes from one of these namespaces to another.
"""

import os
import subprocess
from pathlib import Path

import redis

import harness
from scene import STEADY

PORT = 6379


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=20)


def library():
    """libfaketime, as Debian's package `faketime` lays it down."""
    return str(next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")))


class Host:
    """One network namespace. `clock` is by how much its wall clock is off; monotonic time is the machine's."""

    def __init__(self, name, clock, redis_address=None):
        self.name, self.clock, self.url = name, clock, f"redis://{redis_address}:{PORT}"
        self.namespace = f"hb{os.getpid()}-{name}"
        ip("netns", "add", self.namespace)
        ip("-n", self.namespace, "link", "set", "lo", "up")

    def command(self, *words):
        """What runs these words on this host, under its name and by its clock."""
        clock = ["FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1", "DONT_FAKE_MONOTONIC=1", f"LD_PRELOAD={library()}"]
        named = ["unshare", "--uts", "sh", "-c", f'hostname {self.name}; exec env "$@"', "sh"]
        return ["ip", "netns", "exec", self.namespace, *named, *clock, *self._clock(), *words]

    def _clock(self):
        if isinstance(self.clock, Path):
            return [f"FAKETIME_TIMESTAMP_FILE={self.clock}"]
        return [f"FAKETIME={self.clock}"]

    def ask(self, *words):
        """The checker's answer here."""
        command = [str(word) for word in self.command(harness.CHECKER, *words)]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, env=harness.environment(), check=False)

    def unix_ms(self):
        done = subprocess.run(self.command("date", "+%s%3N"), capture_output=True, text=True, timeout=20, check=True)
        return int(done.stdout)

    def end(self):
        subprocess.run(["ip", "netns", "del", self.namespace], check=False, capture_output=True, timeout=20)


class Worker(harness.Program):
    """One of `steady` on a host."""

    beats_to_redis = True

    def __init__(self, host, name, folder, queue="mail", interval="500ms", promise="3s"):
        self.name, self.file = name, folder / f"beat-{name}"
        variables = {
            "FILE": self.file, "CLUSTER": "c", "WORKER": name, "QUEUES": queue, "INTERVAL": interval, "PROMISE": promise,
        }  # fmt: skip
        if self.beats_to_redis:
            variables["REDIS_URL"] = host.url
        extra = {f"HEARTBEAT_{name}": value for name, value in variables.items()}
        super().__init__(host.command(STEADY, 100), env=harness.environment(**extra))
        assert self.next_line() == f"beating {self.pid}", self.output


class FileWorker(Worker):
    """The same, and it knows nothing of Redis."""

    beats_to_redis = False


class Agent(harness.Program):
    """`heartbeat agent` on a host, for a folder."""

    def __init__(self, host, folder, interval="500ms"):
        command = host.command(harness.HEARTBEAT, "agent", "--dir", folder, "--redis", host.url, "--interval", interval)
        super().__init__(command)


class Network:
    """A host with a Redis, and others that are each wired to it alone."""

    def __init__(self, folder, clocks):
        self.hosts, self.server = {}, None
        try:
            self.redis = Host("redis", "+0")
            for number, (name, clock) in enumerate(clocks.items()):
                near, far = f"192.0.2.{4 * number + 1}", f"192.0.2.{4 * number + 2}"
                host = self.hosts[name] = Host(name, clock, near)
                wire = ["link", "add", f"to-{name}", "netns", self.redis.namespace, "type", "veth"]
                ip(*wire, "peer", "name", "wire", "netns", host.namespace)
                for namespace, device, address in ((self.redis.namespace, f"to-{name}", near), (host.namespace, "wire", far)):
                    ip("-n", namespace, "address", "add", f"{address}/30", "dev", device)
                    ip("-n", namespace, "link", "set", device, "up")
            socket_path = folder / "redis.sock"
            settings = ["--port", PORT, "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--dir", folder]
            command = [harness.REDIS_SERVER, *settings, "--unixsocket", socket_path]
            self.server = harness.Program(["ip", "netns", "exec", self.redis.namespace, *command])
            self.client = redis.Redis(unix_socket_path=str(socket_path), socket_timeout=5, decode_responses=True)
            harness.until(socket_path.exists, what="redis-server listens")
            harness.until(self.client.ping, what="redis-server answers")
        except BaseException:
            self.end()
            raise

    def beats(self):
        """When each worker's last beat reached Redis, in seconds of its clock before it is lost."""
        return dict(self.client.zrange("heartbeat:{c}:ready", 0, -1, withscores=True))

    def pull(self, name):
        """The wire is pulled."""
        ip("-n", self.redis.namespace, "link", "set", f"to-{name}", "down")

    def plug(self, name):
        ip("-n", self.redis.namespace, "link", "set", f"to-{name}", "up")

    def swallow(self, name):
        """What is sent is lost on its way, both ways, and nobody is told."""
        self._drop(f"iifname to-{name}", f"oifname to-{name}")

    def pass_on(self, _name):
        self._filter("delete table inet losses")

    def lose(self, percent):
        """Of what comes to Redis and of what leaves it, so much is lost."""
        self._drop(*[f"numgen random mod 100 < {percent}"] * 2)

    def _drop(self, arriving, leaving):
        self._filter("add table inet losses")
        for hook, which in (("input", arriving), ("output", leaving)):
            self._filter(f"add chain inet losses {hook} {{ type filter hook {hook} priority 0; }}")
            self._filter(f"add rule inet losses {hook} {which} drop")

    def _filter(self, rule):
        command = ["ip", "netns", "exec", self.redis.namespace, "nft", rule]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=20)

    def end(self):
        if self.server:
            self.server.end()
        for host in (*self.hosts.values(), getattr(self, "redis", None)):
            if host:
                host.end()
