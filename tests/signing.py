"""What a worker with a key has to do, in whatever language it is: played by the tests of Python's workers and of C's."""

import json
import subprocess

import redis

import harness
from harness import CHECKER, until

KEY = "the-key-of-this-cluster-0123456789abcdef"
OTHER = "another-key-that-nobody-here-has-0123456"
CLUSTER = "signed"

# What cannot be a key, and what is said of it.
NO_KEYS = {
    "too-short-to-be-a-key": "HEARTBEAT_KEY cannot be used: a key has 32 characters at least",
    f"{KEY} {OTHER} {KEY}": "HEARTBEAT_KEY cannot be used: there are 2 keys at most",
    "ünprintable-" * 4: "HEARTBEAT_KEY cannot be used: a key is printable ASCII",
}


class Signing:
    """A Redis for one worker, that worker's environment, and the key in a file."""

    def __init__(self, server, folder):
        self.url, self.stored = server.url, redis.Redis.from_url(server.url)
        self.key_file, self.other_file = folder / "key", folder / "other"
        self.key_file.write_text(KEY + "\n")
        self.other_file.write_text(OTHER + "\n")
        self.environment = {"HEARTBEAT_REDIS_URL": server.url, "HEARTBEAT_CLUSTER": CLUSTER, "HEARTBEAT_KEY": KEY}

    def ask(self, key_file):
        """The exit status, and the answer, of a checker that has the key in this file."""
        words = [CHECKER, "cluster", CLUSTER, "--redis", self.url, "--key-file", key_file, "--format", "json", "--list"]
        words = [str(word) for word in words]
        done = subprocess.run(words, env=harness.environment(), capture_output=True, text=True, timeout=30, check=False)
        assert done.stdout, done.stderr
        answer = json.loads(done.stdout)
        return done.returncode, answer, [worker["verdict"] for worker in answer["workers"]]

    def is_counted(self):
        code, answer, verdicts = self.ask(self.key_file)
        return (code, answer["status"], verdicts) == (0, "pass", ["alive"]) and answer["fresh"] == 1

    def is_refused(self, key_file):
        code, answer, verdicts = self.ask(key_file)
        assert (code, answer["fresh"], verdicts) == (1, 0, ["corrupt"]), answer
        return answer["reason"]

    def play(self, worker):
        """Its record counts by the key and by no other; once one byte of it is another one, by none; and then as before."""
        until(self.is_counted, timeout=60, what=f"it is counted; {worker.output}")
        assert "its signature is not right" in self.is_refused(self.other_file)
        # From now on nothing of its own is written over what is written here.
        worker.end()
        (stat,) = self.stored.scan_iter(f"heartbeat:{{{CLUSTER}}}:stat:*")
        line = self.stored.get(stat)
        assert set(json.loads(line)) >= {"signed_ms", "mac"}
        assert KEY.encode() not in line
        # The last digit of a moment: with another one it is a record as good as any.
        at = line.index(b",", line.index(b'"at_unix_ms":')) - 1
        self.stored.setrange(stat, at, bytes([line[at] ^ 1]))
        assert "its signature is not right" in self.is_refused(self.key_file)
        self.stored.setrange(stat, at, line[at : at + 1])
        assert self.is_counted()
