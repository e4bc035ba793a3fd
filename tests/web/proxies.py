"""nginx, HAProxy and Caddy of a test's own: each on a free port, in a folder of its own, in front of `checker serve`.

How they are told to pass on who asks is what their own documentation shows.
"""

import contextlib
import os
import shutil
import socket

import harness


class Proxy(harness.Program):
    """`places` are those of the instances behind it, as `--listen` takes them; `header` is the one that tells who asks, none where
    what the client sends is handed on as it is. With `checked`, the proxy asks the instances whether they are ready, if it can."""

    def __init__(self, folder, places, header="X-Forwarded-For", address="127.0.0.1", checked=False):
        self.folder, self.checked = folder, checked
        self.address, self.port = address, harness.free_port()
        self.listen = f"[{address}]:{self.port}" if ":" in address else f"{address}:{self.port}"
        self.settings = folder / f"{self.name}-{self.port}.conf"
        self.settings.write_text(self.configuration([place.removeprefix("unix:") for place in places], self.headers[header]))
        super().__init__(self.start_with(), env=harness.environment(HOME=folder, XDG_DATA_HOME=folder, XDG_CONFIG_HOME=folder), cwd=folder)
        harness.until(self.accepts, timeout=30, what=f"{self.name} accepts connections")

    def accepts(self):
        assert self.process.poll() is None, self.output
        with contextlib.suppress(OSError), socket.create_connection((self.address, self.port), timeout=5):
            return True
        return False


class Nginx(Proxy):
    """It learns from the answers to what others ask, and asks nothing itself. With `checked`, it keeps its connections."""

    name = "nginx"
    headers = {
        "X-Forwarded-For": "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
        "X-Real-IP": "proxy_set_header X-Real-IP $remote_addr;",
        None: "",
    }

    def configuration(self, places, header):
        servers = "\n".join(f"server {'unix:' if place[0] == '/' else ''}{place} max_fails=1 fail_timeout=1s;" for place in places)
        # Else it speaks HTTP/1.0, as it does by default.
        kept = 'proxy_http_version 1.1; proxy_set_header Connection "";' if self.checked else ""
        folders = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        return f"""
            daemon off;
            pid nginx-{self.port}.pid;
            {"user root;" if os.geteuid() == 0 else ""}
            worker_processes 1;
            events {{ worker_connections 256; }}
            http {{
                access_log off;
                {" ".join(f"{name}_temp_path temp-{self.port};" for name in folders)}
                upstream instances {{
                    {servers}
                    keepalive 8;
                }}
                server {{
                    listen {self.listen};
                    location / {{
                        proxy_pass http://instances;
                        proxy_next_upstream error timeout http_503;
                        {kept}
                        {header}
                    }}
                }}
            }}
        """

    def start_with(self):
        return [shutil.which("nginx") or "/usr/sbin/nginx", "-p", self.folder, "-c", self.settings, "-e", "stderr"]


class HAProxy(Proxy):
    """A question that fails is not asked a second time."""

    name = "haproxy"
    # What `option forwarded` sends, which came with 2.8.
    headers = {
        "X-Forwarded-For": "option forwardfor",
        "Forwarded": "http-request add-header Forwarded {}",
        None: "",
    }

    def configuration(self, places, header):
        client = "'for=\"[%[src]]\"'" if ":" in self.address else "for=%[src]"
        check = "check" if self.checked else ""
        servers = "\n".join(
            f"    server i{number} {'unix@' if place[0] == '/' else ''}{place} {check}" for number, place in enumerate(places)
        )
        return f"""
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    retries 0
frontend front
    bind {"ipv6@" if ":" in self.address else ""}{self.address}:{self.port}
    default_backend instances
backend instances
    {header.format(client)}
    option httpchk GET /readyz
    http-reuse always
    default-server inter 100ms fall 1 rise 1
{servers}
"""

    def start_with(self):
        return [shutil.which("haproxy") or "/usr/sbin/haproxy", "-db", "-f", self.settings]


class Caddy(Proxy):
    """A question that fails is not asked a second time."""

    name = "caddy"
    # It believes no client's header.
    headers = {"X-Forwarded-For": ""}

    def configuration(self, places, header):
        servers = " ".join(f"unix/{place}" if place[0] == "/" else place for place in places)
        check = "health_uri /readyz\nhealth_interval 100ms" if self.checked else ""
        return f"""
            {{
                admin off
                auto_https off
            }}
            http://:{self.port} {{
                bind {self.address}
                reverse_proxy {servers} {{
                    {check}
                    {header}
                }}
            }}
        """

    def start_with(self):
        return ["caddy", "run", "--adapter", "caddyfile", "--config", self.settings]


ALL = [Nginx, HAProxy, Caddy]
