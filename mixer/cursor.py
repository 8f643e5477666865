"""Cursors: what a page remembers of its ranked list, sealed so that nobody else can write one."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Sequence

import orjson

from mixer.errors import InvalidRequest, PageUnavailable, StaleCursor, Violation
from mixer.values import Bookmark, Outcome, Reply, Request, Scores

_TAG_BYTES = 16


class CursorSigner:
    """Seals bookmarks into opaque text and opens them again (keyed BLAKE2b, RFC 7693)."""

    def __init__(self, key: bytes) -> None:
        """Servers that share a key open each other's cursors."""
        self._key = hashlib.blake2b(key).digest()

    def seal(self, bookmark: Bookmark) -> str:
        """The bookmark as URL-safe text."""
        fields = [bookmark.request, bookmark.indexes, bookmark.ranker, bookmark.served, bookmark.offset]
        rest = [bookmark.arm, bookmark.seed, bookmark.step]
        while rest and not rest[-1]:
            rest.pop()
        fields += rest
        body = orjson.dumps(fields)
        return base64.urlsafe_b64encode(self._tag(body) + body).decode().rstrip("=")

    def open(self, cursor: str) -> Bookmark:
        """The bookmark that was sealed. Raises: InvalidRequest where it was not sealed with this key."""
        try:
            data = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        except (ValueError, binascii.Error):
            data = b""
        tag, body = data[:_TAG_BYTES], data[_TAG_BYTES:]
        if not hmac.compare_digest(tag, self._tag(body)):
            raise InvalidRequest(
                [Violation("cursor", "is not one of this server's; send next_cursor unchanged")]
            )
        request, indexes, *others = orjson.loads(body)
        return Bookmark(request, tuple((name, version) for name, version in indexes), *others)

    def _tag(self, body: bytes) -> bytes:
        return hashlib.blake2b(body, key=self._key, digest_size=_TAG_BYTES).digest()


def request_digest(request: Request) -> str:
    """Digest of everything in a request that shapes the ranked list."""
    shape = (request.mix, request.query, request.filters, sorted(request.context.items()))
    return _digest([repr(shape)])


def indexes_read(replies: Iterable[Reply]) -> tuple[tuple[str, str], ...]:
    """The backends that answered, each with the version of its index."""
    return tuple((r.backend, r.index.version) for r in replies if r.outcome is Outcome.OK)


def ranker_used(scores: Scores) -> str:
    """Who made the order: the model's hash, or the fusion; both of them where two drafted it."""
    own = scores.model.sha256 if scores.model and not scores.fallback_reason else str(scores.ranker)
    return f"{own} {ranker_used(scores.against)}" if scores.against else own


def served_digest(ids: Sequence[str]) -> str:
    """Digest of the ids served so far, in order."""
    return _digest(ids)


def check_inputs(bookmark: Bookmark, replies: Sequence[Reply], scores: Scores) -> None:
    """Hold the inputs of the ranked list against those of the page before.

    Raises: PageUnavailable where a backend is missing now (trying again may help); StaleCursor where an index or
    the model changed, or a backend that was missing is back (it cannot).
    """
    then, now = dict(bookmark.indexes), dict(indexes_read(replies))
    missing = sorted(then.keys() - now.keys())
    if missing:
        raise PageUnavailable(
            f"{', '.join(missing)} answered for the page before but not for this one; try again"
        )
    changed = sorted(name for name in now if then.get(name) != now[name])
    if changed:
        raise StaleCursor(f"the index of {', '.join(changed)} changed since the page before; start again")
    if bookmark.ranker != ranker_used(scores):
        raise StaleCursor("the model changed since the page before; start again")


def check_served(bookmark: Bookmark, ids: Sequence[str]) -> None:
    """Hold the head of the order against what was served. Raises: StaleCursor where they differ."""
    if bookmark.served != served_digest(ids):
        raise StaleCursor("the ranked list changed since the page before; start again")


def _digest(parts: Iterable[str]) -> str:
    framed = (
        b"%d:%b" % (len(data), data) for data in (part.encode("utf-8", "surrogatepass") for part in parts)
    )
    return hashlib.blake2b(b"".join(framed), digest_size=16).hexdigest()
