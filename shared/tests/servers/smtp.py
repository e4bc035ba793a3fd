"""An SMTP server (aiosmtpd): smtp.py PORT plain|starttls|tls [CERTIFICATE KEY [CLIENT]]. The login is shop, with S3cret.

Who does not show the certificate CLIENT is not let in."""

import signal
import ssl
import sys

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

port, mode, files = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
context = None
if files:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*files[:2])
    if clients := files[2:]:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(*clients)


class Told:
    """Tells of every mail that comes: none may."""

    async def handle_DATA(self, server, session, envelope):
        print("A MAIL CAME", flush=True)
        return "250 OK"

    async def handle_QUIT(self, server, session, envelope):
        print("good bye", flush=True)
        return "221 Bye"


def authenticate(server, session, envelope, mechanism, data):
    right = (data.login, data.password) == (b"shop", b"S3cret")
    return AuthResult(success=right, handled=False)


Controller(
    Told(),
    hostname="127.0.0.1",
    port=port,
    ssl_context=context if mode == "tls" else None,
    tls_context=context if mode == "starttls" else None,
    authenticator=authenticate,
    auth_require_tls=mode == "starttls",
).start()
signal.pause()
