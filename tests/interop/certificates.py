"""An authority, and the certificates that it signs for a server and its clients, made by `openssl` for one run of the tests."""

import subprocess
from pathlib import Path


class Authority:
    """Its certificate is `path`; all that it makes stands in `folder`."""

    def __init__(self, folder, name="authority"):
        self.folder, self.name = Path(folder), name
        self.path, self.key = self.folder / f"{name}.pem", self.folder / f"{name}-key.pem"
        # Newer Pythons insist on what an authority's certificate says of itself.
        may_sign = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
        self._openssl("req", "-x509", *NEW_KEY, "-keyout", self.key, "-out", self.path, "-subj", f"/CN={name}", "-days", 2, *may_sign)

    def sign(self, name, *names):
        """A certificate and its key for a peer of these names, such as `DNS:localhost` or `IP:127.0.0.1`."""
        certificate, key, extensions = (self.folder / f"{name}{end}" for end in (".pem", "-key.pem", ".ext"))
        words = [f"subjectAltName={','.join(names)}"] if names else []
        extensions.write_text("\n".join(["basicConstraints=CA:FALSE", "authorityKeyIdentifier=keyid", "extendedKeyUsage=serverAuth,clientAuth", *words]))
        request = self.folder / f"{name}.csr"
        self._openssl("req", "-new", *NEW_KEY, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        signing = ["-CA", self.path, "-CAkey", self.key, "-CAcreateserial", "-extfile", extensions, "-days", 1]
        self._openssl("x509", "-req", "-in", request, "-out", certificate, *signing)
        return certificate, key

    def _openssl(self, *words):
        done = subprocess.run(["openssl", *map(str, words)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"openssl {words}:\n{done.stderr}"


NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
