"""The authority: the CA in whose name certificates are shown to clients, its leaves, and the files that it is kept in.

Whom a client is told it talks to is decided here; how TLS is spoken with these certificates is in `contexts`. The key
leaves this module only to sign: no form that is given out has it.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import pwd
import stat
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    pkcs12,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from streamproxy.tls.minting import AuthorityKey, make_leaf, make_root, new_key, normal_name

CERTIFICATE_FILE, KEY_FILE = "ca.pem", "ca-key.pem"
BUNDLE_FILE, JAVA_FILE = "ca-bundle.pem", "ca-bundle.p12"
# How many leaves are remembered; each takes about 4 KiB.
LEAVES = 4096
# More than any file of certificates has, and little enough that a mistaken path (/dev/zero) ends in words.
LARGEST_FILE = 4 << 20
# Of an authority that ends within this time its user is warned.
ENDS_SOON = 30 * 86_400
# Which curves browsers take. Neither do they take an RSA key below this size (bits), nor any Ed25519.
CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
LEAST_RSA = 2048


class AuthorityError(Exception):
    """Why there is no authority, or no leaf: one clear line for the user."""


class Leaf(NamedTuple):
    """A certificate for a name, and when (seconds since the epoch) it should no longer be handed out."""

    name: str
    certificate: x509.Certificate
    renew_at: float


class Authority:
    """A CA that mints leaves, all of them for one key, `leaf_key`, which is made here and is never written.

    `chain` goes in as the certificates above the CA's own, each signed by the next. What stays in `chain` is to be sent
    behind a leaf: all that isn't a root. `anchor` is what clients are to trust, the topmost; `pem`, `der`, `p12` and
    the fingerprints are the anchor's. `path` is the file it came from, `files` all of them; `warnings` are lines for
    the user.
    """

    def __init__(
        self,
        certificate: x509.Certificate,
        key: AuthorityKey,
        chain: Sequence[x509.Certificate] = (),
        now: Callable[[], float] = time.time,
        path: Path | None = None,
    ) -> None:
        self.certificate = certificate
        self.anchor = chain[-1] if chain else certificate
        self.chain = tuple(each for each in (certificate, *chain) if each.subject != each.issuer)
        self.path = path
        self.files: tuple[Path, ...] = ()
        self.warnings: list[str] = []
        self.leaf_key = new_key()
        self._key = key
        self._now = now
        self._leaves: OrderedDict[str, Leaf] = OrderedDict()
        # How many leaves it has made.
        self.minted = 0
        left = certificate.not_valid_after_utc.timestamp() - now()
        if left < ENDS_SOON:
            self.warnings.append(
                f"the CA {certificate.subject.rfc4514_string()} ends in {max(0, int(left // 86_400))} days"
            )

    def leaf(self, name: str) -> Leaf:
        """The leaf for a host name or an address, kept until a third of its time is left.

        Raises `AuthorityError` where `name` is neither of these, and where the CA has expired.
        """
        try:
            normal = normal_name(name)
        except ValueError as error:
            raise AuthorityError(f"no certificate can be made: {error}") from None
        text, now = str(normal), self._now()
        kept = self._leaves.get(text)
        if kept is not None and now < kept.renew_at:
            self._leaves.move_to_end(text)
            return kept
        if now >= self.certificate.not_valid_after_utc.timestamp():
            raise AuthorityError(f"no certificate can be made: the CA expired on {_day(self.certificate)}")
        certificate = make_leaf(normal, self.leaf_key.public_key(), self.certificate, self._key, now)
        left = certificate.not_valid_after_utc.timestamp() - now
        self.minted += 1
        leaf = self._leaves[text] = Leaf(text, certificate, now + left * 2 / 3)
        self._leaves.move_to_end(text)
        if len(self._leaves) > LEAVES:
            self._leaves.popitem(last=False)
        return leaf

    @property
    def kept(self) -> int:
        """How many leaves are kept for the next who asks for them."""
        return len(self._leaves)

    @property
    def ends(self) -> float:
        """When it expires, in seconds since the epoch."""
        return self.certificate.not_valid_after_utc.timestamp()

    @functools.cached_property
    def pem(self) -> bytes:
        """The anchor in PEM."""
        return self.anchor.public_bytes(Encoding.PEM)

    @functools.cached_property
    def der(self) -> bytes:
        """The anchor in DER."""
        return self.anchor.public_bytes(Encoding.DER)

    @functools.cached_property
    def p12(self) -> bytes:
        """The anchor in PKCS#12 (RFC 7292), without a password: nothing in it is secret."""
        return trust_store([self.anchor])

    @functools.cached_property
    def fingerprint(self) -> str:
        """The anchor's SHA-256 fingerprint, as programs show it: AB:CD:..."""
        return self.anchor.fingerprint(hashes.SHA256()).hex(":").upper()

    @functools.cached_property
    def fingerprint_sha1(self) -> str:
        """The anchor's SHA-1 fingerprint, which macOS and Windows still name a certificate by."""
        return self.anchor.fingerprint(hashes.SHA1()).hex(":").upper()

    def bundle(self, others: bytes | None) -> bytes:
        """A PEM file that trusts the anchor beside the certificates in `others`, a PEM file as well."""
        blocks = [block for block in pem_certificates(others or b"") if block.split() != self.pem.split()]
        return b"".join([self.pem, *blocks])


def pem_certificates(pem: bytes) -> list[bytes]:
    """The PEM blocks of the certificates in a file, each with its line ends, and nothing else of it."""
    begin, end = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"
    return [begin + part.partition(end)[0] + end + b"\n" for part in pem.split(begin)[1:] if end in part]


def trust_store(certificates: Sequence[x509.Certificate]) -> bytes:
    """Certificates in PKCS#12 without a password, marked as trusted in the way that Java looks for."""
    named = [
        pkcs12.PKCS12Certificate(certificate, b"streamproxy" if index == 0 else b"streamproxy-%d" % index)
        for index, certificate in enumerate(certificates)
    ]
    return pkcs12.serialize_java_truststore(named, NoEncryption())


def authority_for(
    state_dir: str | None,
    certificate: str | None,
    key: str | None,
    environ: Mapping[str, str] = os.environ,
    now: Callable[[], float] = time.time,
) -> Authority:
    """The user's own CA where `certificate` names one, else the one of the state folder. Raises `AuthorityError`."""
    if certificate is not None:
        return load_authority(Path(certificate), None if key is None else Path(key), now)
    if key is not None:
        raise AuthorityError("tls.authority: a key without a certificate")
    return open_authority(state_folder(state_dir, environ), now)


def state_folder(configured: str | None, environ: Mapping[str, str] = os.environ) -> Path:
    """The absolute path of the folder for what is kept: `configured`, else systemd's, else ~/.streamproxy.

    Raises `AuthorityError` where there is no home.
    """
    if configured:
        if configured == "~" or configured.startswith("~/"):
            return _home(environ) / configured[2:]
        return Path(configured).absolute()
    # systemd.exec(5): several folders are divided by colons.
    systemd = environ.get("STATE_DIRECTORY", "").split(":")[0]
    return Path(systemd).absolute() if systemd else _home(environ) / ".streamproxy"


def _home(environ: Mapping[str, str]) -> Path:
    home = environ.get("HOME") or ""
    if not home:
        with contextlib.suppress(KeyError):
            home = pwd.getpwuid(os.getuid()).pw_dir
    if not home.startswith("/"):
        raise AuthorityError("there is no home folder to keep the CA in: set state_dir")
    return Path(home)


def open_authority(folder: Path, now: Callable[[], float] = time.time) -> Authority:
    """The CA that is kept in `folder`, made there if there is none. Raises `AuthorityError`, and overwrites nothing.

    The key is written before the certificate, and both in such a way (link(2)) that of several processes one
    succeeds, and the others take what it wrote. No lock is needed, nor left behind.
    """
    certificate_path, key_path = folder / CERTIFICATE_FILE, folder / KEY_FILE
    make_folder(folder)
    # The certificate first: whoever finds it, finds its key as well.
    written, key_pem = _read_if_there(certificate_path), _read_if_there(key_path)
    if written is not None and key_pem is None:
        raise AuthorityError(
            f"{key_path}: is missing, though {certificate_path} is there: put the key back, or move the certificate"
            " away to have a new CA made"
        )
    if key_pem is None:
        fresh = new_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        key_pem = _create(key_path, fresh, 0o600)
    key = _key(key_pem, key_path)
    if written is None:
        written = _create(certificate_path, make_root(key, now()).public_bytes(Encoding.PEM), 0o644)
    authority = _checked(written, certificate_path, key, key_path, now)
    if stat.S_IMODE(folder.stat().st_mode) & 0o022:
        authority.warnings.append(f"{folder}: others than its owner may write here: chmod go-w {folder}")
    return authority


def load_authority(certificate: Path, key: Path | None, now: Callable[[], float] = time.time) -> Authority:
    """A CA of the user's own, from PEM files: its certificate, those above it, and its key (None: in the same file).

    Raises `AuthorityError`.
    """
    pem = _read(certificate)
    key_path = key or certificate
    return _checked(pem, certificate, _key(pem if key is None else _read(key_path), key_path), key_path, now)


def _checked(pem: bytes, path: Path, key: AuthorityKey, key_path: Path, now: Callable[[], float]) -> Authority:
    """The authority of these files, if browsers will take what it signs."""
    certificates = _certificates(pem, path)
    for position, certificate in enumerate(certificates):
        try:
            wrong = _what_is_wrong(certificate, position - 1, now())
        except (ValueError, UnsupportedAlgorithm) as error:
            wrong = f"can't be read: {error}"
        if wrong:
            which = "" if len(certificates) == 1 else f"certificate {position + 1}: "
            raise AuthorityError(f"{path}: {which}{wrong}")
    for position, (below, above) in enumerate(itertools.pairwise(certificates), 1):
        try:
            below.verify_directly_issued_by(above)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            raise AuthorityError(
                f"{path}: certificate {position} isn't signed by certificate {position + 1}: expected the CA's own,"
                " then each one's issuer"
            ) from None
    if certificates[0].public_key() != key.public_key():
        raise AuthorityError(f"{key_path}: is not the key of the certificate in {path}")
    authority = Authority(certificates[0], key, certificates[1:], now, path)
    authority.files = (path, key_path)
    with contextlib.suppress(OSError):
        if stat.S_IMODE(key_path.stat().st_mode) & 0o077:
            authority.warnings.append(f"{key_path}: others than its owner may use this key: chmod 600 {key_path}")
    return authority


def _what_is_wrong(certificate: x509.Certificate, below: int, now: float) -> str | None:
    """Why a certificate can't be a CA's, in words, or None.

    `below`: how many CAs stand between it and the one that signs leaves; -1 for that one.
    """
    extensions = certificate.extensions
    try:
        constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        constraints = x509.BasicConstraints(ca=False, path_length=None)
    if not constraints.ca:
        return "is not a CA's certificate (basicConstraints doesn't say CA:TRUE), so it can sign no other"
    if constraints.path_length is not None and constraints.path_length <= below:
        return f"allows {constraints.path_length} CAs below it (pathlen), not {below + 1}"
    with contextlib.suppress(x509.ExtensionNotFound):
        if not extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign:
            return "may not sign certificates (keyUsage has no keyCertSign)"
    with contextlib.suppress(x509.ExtensionNotFound):
        uses = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        if not {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}.intersection(uses):
            return "may not sign servers' certificates (extendedKeyUsage has no serverAuth)"
    if now >= certificate.not_valid_after_utc.timestamp():
        return f"expired on {_day(certificate)}: move it and its key away, and put a new CA in its place"
    if now < certificate.not_valid_before_utc.timestamp():
        return (
            f"is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC: is this machine's clock right?"
        )
    return _what_is_wrong_with_key(certificate.public_key())


def _what_is_wrong_with_key(key: object) -> str | None:
    if isinstance(key, rsa.RSAPublicKey):
        return (
            None if key.key_size >= LEAST_RSA else f"its RSA key has {key.key_size} bits; expected {LEAST_RSA} or more"
        )
    if isinstance(key, ec.EllipticCurvePublicKey):
        return None if isinstance(key.curve, CURVES) else f"its key is on {key.curve.name}, which browsers don't take"
    return "its key is neither RSA nor on a NIST curve, and browsers take no other"


def _certificates(pem: bytes, path: Path) -> list[x509.Certificate]:
    if not pem.strip():
        raise AuthorityError(f"{path}: is empty; expected a certificate in PEM")
    blocks = pem_certificates(pem)
    if not blocks:
        hint = f" (openssl x509 -inform DER -in {path} makes it that)" if pem[:1] == b"\x30" else ""
        raise AuthorityError(f"{path}: expected a certificate in PEM{hint}")
    try:
        return [x509.load_pem_x509_certificate(block) for block in blocks]
    except ValueError:
        raise AuthorityError(f"{path}: holds a certificate that is damaged") from None


def _key(pem: bytes, path: Path) -> AuthorityKey:
    if not pem.strip():
        raise AuthorityError(f"{path}: is empty; expected a private key in PEM")
    if b"PRIVATE KEY-----" not in pem:
        raise AuthorityError(f"{path}: expected a private key in PEM")
    try:
        key = load_pem_private_key(pem, None)
    except TypeError:
        raise AuthorityError(
            f"{path}: the key is encrypted; expected one without a password (openssl pkey -in {path} writes it so)"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise AuthorityError(f"{path}: holds a private key that is damaged or of an unknown kind") from None
    wrong = _what_is_wrong_with_key(key.public_key())
    if wrong or not isinstance(key, AuthorityKey):
        raise AuthorityError(f"{path}: {wrong}")
    return key


def _day(certificate: x509.Certificate) -> str:
    return f"{certificate.not_valid_after_utc:%Y-%m-%d}"


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        raise AuthorityError(f"{path}: can't be read: {_why(error)}") from error
    if len(content) > LARGEST_FILE:
        raise AuthorityError(f"{path}: can't be read: is larger than {LARGEST_FILE >> 20}m")
    return content


def _read_if_there(path: Path) -> bytes | None:
    try:
        return _read(path)
    except AuthorityError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise


def _why(error: OSError | ValueError) -> str:
    """The reason alone: an OSError's own words repeat the path."""
    return str(getattr(error, "strerror", None) or error)


def make_folder(folder: Path) -> None:
    """Make a folder that only its owner may enter, where there is none. Raises `AuthorityError`."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            folder.mkdir(0o700)
        except FileExistsError:
            if not folder.is_dir():
                raise
        else:
            # Whatever the umask took away of what its owner may.
            folder.chmod(0o700)
    except (OSError, ValueError) as error:
        raise AuthorityError(f"{folder}: can't be made: {_why(error)}; state_dir can name another") from None


def _create(path: Path, content: bytes, mode: int) -> bytes:
    """Write a file that isn't there yet, whole or not at all; what is in it then, which may be another process's."""
    try:
        with _written_beside(path, content, mode) as temporary:
            os.link(temporary, path)
    except FileExistsError:
        return _read(path)
    except (OSError, ValueError) as error:
        raise AuthorityError(f"{path}: can't be made: {_why(error)}") from None
    return content


def replace_file(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a file anew, whole or not at all. Raises `AuthorityError`."""
    try:
        with _written_beside(path, content, mode) as temporary:
            os.replace(temporary, path)
    except (OSError, ValueError) as error:
        raise AuthorityError(f"{path}: can't be written: {_why(error)}") from None


@contextlib.contextmanager
def _written_beside(path: Path, content: bytes, mode: int) -> Iterator[str]:
    """A temporary file in the folder of `path`, on the disk and with its mode, to be given its name in the block."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            above = path.parent.stat()
            if os.geteuid() == 0 and above.st_uid != 0:
                # Root asked, but the folder's owner will have to read it.
                os.fchown(descriptor, above.st_uid, above.st_gid)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        yield temporary
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
