"""Stores of objects that look at who asks: `objects.py aws PORT FOLDER`, `objects.py google PORT FOLDER [CERTIFICATE KEY]`. The objects and Amazon's signatures are moto's.

`aws` lets in the users `shop`, who may do everything, and `reader`, who may only read; their keys are in FOLDER/users.json.
With a certificate, `google` talks TLS with who shows the same one. It lets in who shows a token that the key to FOLDER/public.pem has signed. Google's XML dialect is Amazon's for what
is asked of it; the registries have no emulator that knows all of that: gcp-storage-emulator has neither HEAD nor DELETE in it.
"""

import base64
import json
import os
import ssl
import sys
import time
from pathlib import Path

AWS_SETUP = 7  # calls to make users, keys, policies and the bucket; whoever calls thereafter is looked at
os.environ["INITIAL_NO_AUTH_ACTION_COUNT"] = str(AWS_SETUP) if sys.argv[1] == "aws" else "1000000000"

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from moto.server import DomainDispatcherApplication, ThreadedMotoServer, create_backend_app
from werkzeug.serving import run_simple
from werkzeug.test import Client
from werkzeug.wrappers import Response


def aws(port, folder):
    import boto3

    server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    place = {"endpoint_url": f"http://127.0.0.1:{port}", "region_name": "us-east-1"}
    nobody = {"aws_access_key_id": "nobody", "aws_secret_access_key": "nothing"}
    iam = boto3.client("iam", **place, **nobody)
    users = {}
    for name, actions in (("shop", "s3:*"), ("reader", "s3:Get*")):
        iam.create_user(UserName=name)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        users[name] = {"account": key["AccessKeyId"], "secret": key["SecretAccessKey"]}
        may = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}]}
        iam.put_user_policy(UserName=name, PolicyName="own", PolicyDocument=json.dumps(may))
    boto3.client("s3", **place, **nobody).create_bucket(Bucket="media")
    (folder / "new").write_text(json.dumps(users))
    (folder / "new").rename(folder / "users.json")
    while True:
        time.sleep(60)


def google(port, folder, *files):
    key = load_pem_public_key((folder / "public.pem").read_bytes())
    objects = DomainDispatcherApplication(create_backend_app)
    assert Client(objects).put("/media").status_code == 200

    def guarded(environ, start_response):
        if not is_signed(environ.get("HTTP_AUTHORIZATION", ""), key):
            return Response(status=401)(environ, start_response)
        # Whoever was let in is somebody to moto, which does not look at the signature then.
        environ["HTTP_AUTHORIZATION"] = "AWS4-HMAC-SHA256 Credential=shop/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
        return objects(environ, start_response)

    run_simple("127.0.0.1", port, guarded, threaded=True, ssl_context=encrypted(*files) if files else None)


def encrypted(certificate, key):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(certificate, key)
    return context


def is_signed(authorization, key):
    try:
        signed, _, signature = authorization.removeprefix("Bearer ").rpartition(".")
        key.verify(unpacked(signature), signed.encode(), PKCS1v15(), SHA256())
        told = json.loads(unpacked(signed.partition(".")[2]))
        return told["iss"] == "shop@example.test" and told["exp"] > time.time()
    except (InvalidSignature, ValueError, KeyError):
        return False


def unpacked(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


{"aws": aws, "google": google}[sys.argv[1]](int(sys.argv[2]), Path(sys.argv[3]), *sys.argv[4:])
