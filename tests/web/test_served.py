"""That what the tests here start is the real thing."""

import json
import urllib.request


def test_it_answers(serve):
    server = serve("[subsets]\nreadiness = ['ok']\n[checks.ok]\ntype = 'command'\ncommand = ['true']\n")
    with urllib.request.urlopen(f"{server.url}/readyz?format=json", timeout=20) as answer:
        assert json.load(answer) == {"status": "ready", "checks": {"ok": "ok"}}
