"""What deploy/'s configurations are tried with: copies with a test's own addresses, `checker serve`, Prometheus."""

import json
import os
import shutil
import sys
import urllib.error
import urllib.parse
import urllib.request

import harness

DEPLOY = harness.REPOSITORY / "deploy"


def program(name):
    """Some come as wheels, beside the tests' other packages; and Debian keeps servers where not everybody's PATH leads."""
    wheels = os.pathsep.join(f"{folder}/bin" for folder in sys.path)
    return shutil.which(name, path=f"{wheels}:{os.environ['PATH']}:/usr/local/sbin:/usr/sbin:/sbin") or name


def copied(page, folder, changes, name=None):
    """A copy of one of deploy/'s pages with other words in some places. Each must be there, or nothing would have been tried."""
    text = (DEPLOY / page).read_text()
    for old, new in changes.items():
        assert old in text, f"{page} has no {old!r}"
        text = text.replace(old, str(new))
    copy = folder / (name or (DEPLOY / page).name)
    copy.write_text(text)
    return copy


class Serve(harness.Program):
    """`checker serve` on a port of its own, once it listens."""

    def __init__(self, file, *arguments, env=None):
        self.port = harness.free_port()
        self.place = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.place}"
        super().__init__([harness.CHECKER, "serve", "--config", file, "--listen", self.place, *arguments], env)
        harness.until(lambda: "listening" in self.output or self.process.poll() is not None, timeout=60, what="it listens")
        assert self.process.poll() is None, self.output


def ask(url, timeout=20):
    """Status and text of an answer, whatever it says."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


class Prometheus(harness.Program):
    """A real Prometheus on a copy of the configuration, with nothing kept."""

    def __init__(self, folder, configuration):
        self.port = harness.free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        options = [f"--config.file={configuration}", f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{self.port}"]
        super().__init__([program("prometheus"), *options], cwd=folder)
        harness.until(self.answers, timeout=60, what="Prometheus answers")

    def answers(self):
        assert self.process.poll() is None, self.output
        try:
            return ask(f"{self.url}/-/ready")[0] == 200
        except OSError:
            return False

    def query(self, expression):
        status, text = ask(f"{self.url}/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
        answer = json.loads(text)
        assert status == 200 and answer["status"] == "success", f"{expression}: {text}"
        return answer["data"]["result"]

    def alerts(self):
        """The names of the alerts that fire now."""
        answer = json.loads(ask(f"{self.url}/api/v1/alerts")[1])
        return {alert["labels"]["alertname"] for alert in answer["data"]["alerts"] if alert["state"] == "firing"}
