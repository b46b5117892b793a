"""The files that secrets and configuration hold in a cluster: certificates for what objects of cert-manager ask for, made by
openssl, ConfigMaps as they are, and a token where somebody has to bring one."""

import hashlib
import subprocess

# A secret that is not made by any object.
TOKENS = "oncelog-tokens"
TOKEN = "a-token-of-somebody-else"


def openssl(*arguments):
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def key_and(*request):
    return [*request, "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


def files(things, directory):
    """The directory of each secret and ConfigMap, by its name. What is in `directory` already stays as it is."""
    found = {}
    certificates = [thing["spec"] for thing in things if thing["kind"] == "Certificate"]
    for spec in sorted(certificates, key=lambda spec: not spec.get("isCA", False)):
        own = directory / spec["secretName"]
        found[spec["secretName"]] = own
        if own.exists():
            continue
        own.mkdir(parents=True)
        key, certificate = own / "tls.key", own / "tls.crt"
        if spec.get("isCA"):
            openssl(*key_and("req", "-x509"), "-days", "1", "-subj", f"/CN={spec['commonName']}", "-keyout", key, "-out", certificate)
            continue
        authority = directory / spec["issuerRef"]["name"]
        names = [f"DNS:{name}" for name in spec.get("dnsNames", [])] + [f"URI:{name}" for name in spec.get("uris", [])]
        usages = {"server auth": "serverAuth", "client auth": "clientAuth"}
        extended = ",".join(usages[usage] for usage in spec["usages"] if usage in usages)
        extensions = ["-addext", f"subjectAltName={','.join(names)}", "-addext", f"extendedKeyUsage={extended}"]
        openssl(*key_and("req"), "-subj", "/", *extensions, "-keyout", key, "-out", own / "request")
        signer = ["-CA", authority / "tls.crt", "-CAkey", authority / "tls.key", "-CAcreateserial"]
        openssl("x509", "-req", "-in", own / "request", *signer, "-copy_extensions", "copy", "-days", "1", "-out", certificate)
        (own / "ca.crt").write_bytes((authority / "tls.crt").read_bytes())
    for thing in things:
        if thing["kind"] == "ConfigMap":
            own = directory / thing["metadata"]["name"]
            own.mkdir(parents=True, exist_ok=True)
            for name, text in thing["data"].items():
                (own / name).write_text(text)
            found[thing["metadata"]["name"]] = own
    own = directory / TOKENS
    own.mkdir(parents=True, exist_ok=True)
    (own / "tokens").write_text(f"somebody-else sha256:{hashlib.sha256(TOKEN.encode()).hexdigest()}\n")
    found[TOKENS] = own
    return found
