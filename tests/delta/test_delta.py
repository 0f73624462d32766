"""Deltas: what is encoded comes back, chains compose, and hostile blobs are refused before they cost anything."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from vcsimg.delta import Delta, PieceState, StateMismatch, codec, describe, encode, merge, page_hashes, parse
from vcsimg.delta.blob import apply_all
from vcsimg.delta.encode import keyframes
from vcsimg.delta.frames import pack_over
from vcsimg.delta.lines import LINES, PATCH, pack_lines, unpack_patch
from vcsimg.delta.merge import words_of
from vcsimg.delta.units import PAGE, PAGES, QUARTER
from vcsimg.delta.words import LANES, WORDS
from vcsimg.errors import DamagedImage, HostileImage, ImageError, NewerFormat
from vcsimg.image import units

ADDRESS = 0x7F1234800000


class Content:
    """A piece in plain form, to compare with."""

    def __init__(self) -> None:
        self.own = np.zeros(PAGES, bool)
        self.data = np.zeros((PAGES, PAGE), np.uint8)

    def change(self, state: PieceState, pages: list[int], fill: list[bytes | None]) -> Delta | None:
        """Set pages (None: no own content) and encode that."""
        index = np.array(pages, np.uint16)
        old, had = self.data[index].copy(), self.own[index].copy()
        for page, content in zip(pages, fill, strict=True):
            self.own[page] = content is not None
            self.data[page] = np.frombuffer((content or b"").ljust(PAGE, b"\0"), np.uint8)
        return encode(ADDRESS, index, old, had, self.data[index].copy(), self.own[index].copy(), state)

    def apply(self, delta: Delta) -> None:
        """Apply a delta as a reader would."""
        assert np.array_equal(self.own[delta.pages], delta.had)
        delta.apply_to(self.data, "test")
        self.own[delta.pages] = delta.has


changes = st.lists(
    st.dictionaries(
        st.integers(0, 7).map(lambda page: page * 73), st.none() | st.binary(max_size=6), min_size=1, max_size=5
    ),
    min_size=1,
    max_size=8,
)  # fmt: skip


def test_sizes_are_those_of_the_image_model() -> None:
    assert (PAGE, PAGES) == (units.PAGE_SIZE, units.PAGES_PER_PIECE)
    assert PAGES % QUARTER == 0


@given(changes)
@settings(max_examples=60, deadline=None)
def test_any_sequence_comes_back_step_by_step_and_merged(steps: list[dict[int, bytes | None]]) -> None:
    """Each delta, read back from its bytes, leads to the model's content and state; all merged lead there at once."""
    model, state = Content(), PieceState()
    reader = Content()
    deltas = []
    for step in steps:
        pages = sorted(step)
        delta = model.change(state, pages, [step[page] for page in pages])
        if delta is not None:
            again = parse(delta.bytes(), "test")
            assert again.bytes() == delta.bytes()
            reader.apply(again)
            deltas.append(again)
        assert np.array_equal(reader.data, model.data)
        assert np.array_equal(reader.own, model.own)
        own = np.flatnonzero(model.own).astype(np.uint16)
        assert state.digest == int(np.bitwise_xor.reduce(page_hashes(model.data[own], own), initial=0))
    if deltas:
        assert deltas[-1].after == state.digest
        merged = merge(deltas, ADDRESS, "test")
        at_once = Content()
        if merged is not None:
            assert (merged.before, merged.after) == (0, state.digest)
            at_once.apply(parse(merged.bytes(), "test"))
        assert np.array_equal(at_once.data, model.data)
        assert np.array_equal(at_once.own, model.own)


def test_a_delta_leads_back_too() -> None:
    """Applied to what it leads to, a delta gives what it leads from, with the pages that had own content."""
    model, state = Content(), PieceState()
    model.change(state, [1, 2, 3], [b"a", b"", b"c"])
    before = (model.own.copy(), model.data.copy())
    delta = model.change(state, [1, 2, 9], [b"x", None, b"new"])
    assert delta is not None
    model.data[delta.pages] ^= delta.rows("test")
    model.own[delta.pages] = delta.had
    assert np.array_equal(model.own, before[0])
    assert np.array_equal(model.data, before[1])


def test_pages_that_did_not_change_are_not_named() -> None:
    model, state = Content(), PieceState()
    model.change(state, [0, 1, 2], [b"a", b"b", b"c"])
    delta = model.change(state, [0, 1, 2], [b"a", b"B", b"c"])
    assert delta is not None
    assert delta.pages.tolist() == [1]
    assert model.change(state, [0, 1, 2], [b"a", b"B", b"c"]) is None


def test_wrong_old_content_is_noticed() -> None:
    """A delta from content that never was would damage every later capture."""
    model, state = Content(), PieceState()
    model.change(state, [5], [b"a"])
    before = state.digest
    model.data[5, 0] ^= 1
    with pytest.raises(StateMismatch):
        model.change(state, [5], [b"c"])
    assert state.digest == before


def test_random_pages_are_stored_raw_and_zeros_cost_nothing() -> None:
    rows = np.random.default_rng(1).integers(0, 256, (8, PAGE), np.uint8)
    pages = np.arange(8, dtype=np.uint16)
    (delta,) = keyframes(ADDRESS, pages, rows, PieceState())
    assert len(delta.payload) == 8 * PAGE
    sparse = np.zeros((8, PAGE), np.uint8)
    sparse[:, 100] = 1
    (delta,) = keyframes(ADDRESS, pages, sparse, PieceState())
    assert len(delta.payload) < 100


@pytest.mark.parametrize("kind", ["zeros", "one", "pointers", "text", "digits", "counters", "random"])
def test_every_codec_comes_back(kind: str) -> None:
    """Data that leads to each codec; what is unpacked is what was packed."""
    rng = np.random.default_rng(2)
    rows = np.zeros((16, PAGE), np.uint8)
    words = rows.view(np.uint64)
    if kind == "one":
        rows[3, 77] = 9
    elif kind == "pointers":
        words[:] = 0x7F0000000000 + rng.integers(0, 1 << 12, words.shape) * 48
    elif kind == "text":
        rows[:] = np.frombuffer((b"some text that repeats itself, " * 3000)[: rows.nbytes], np.uint8).reshape(rows.shape)
    elif kind == "digits":
        rows[:] = rng.integers(ord("0"), ord("9") + 1, rows.shape)
    elif kind == "counters":
        words[:, ::5] = rng.integers(0, 1000, words[:, ::5].shape)
    elif kind == "random":
        rows[:] = rng.integers(0, 256, rows.shape)
    number, payload = codec.pack(rows)
    assert np.array_equal(codec.unpack(number, payload, len(rows), "test"), rows)
    data = rng.integers(0, 256, (PAGES, PAGE), np.uint8)
    pages = np.sort(rng.choice(PAGES, len(rows), replace=False)).astype(np.uint16)
    expected_data = data.copy()
    expected_data[pages] ^= rows
    codec.xor_into(number, payload, pages, data, "test")
    assert np.array_equal(data, expected_data)
    expected = {"pointers": LANES, "text": WORDS, "digits": codec.ZSTD, "random": codec.RAW}
    assert number == expected.get(kind, number)
    if kind in ("zeros", "one", "counters"):
        assert number in (WORDS, LANES)


def test_merging_refuses_deltas_that_do_not_follow() -> None:
    model, state = Content(), PieceState()
    one = model.change(state, [1], [b"a"])
    model.change(state, [1], [b"b"])
    three = model.change(state, [1], [b"c"])
    assert one is not None
    assert three is not None
    with pytest.raises(DamagedImage):
        merge([one, three], ADDRESS, "test")


@pytest.mark.parametrize("count", [1, 3, 900, 200_000])
def test_deltas_merge_alike_by_words_and_by_pages(count: int) -> None:
    """However many words change, kept decoded or read back from blobs: what merges is what a reader finds, and pages that came back to
    what they were are not named."""
    rng = np.random.default_rng(count)
    model, state = Content(), PieceState()
    pages = list(range(0, PAGES, 1 if count > 1000 else 40))
    model.change(state, pages, [b"x"] * len(pages))
    start = model.data.copy()
    made: list[Delta] = []
    for step in range(4):
        if step < 3:
            places = rng.integers(0, len(pages) * PAGE // 8, count)
            flip = rng.integers(1, 4, count, np.uint64)
            rows = model.data[pages].reshape(-1).view(np.uint64)
            rows[places] ^= flip
            fill: list[bytes | None] = [row.tobytes() for row in rows.view(np.uint8).reshape(-1, PAGE)]
        else:  # all but one back to what they were, and one gone
            fill = [*(row.tobytes() for row in start[pages[:-1]]), None]
        delta = model.change(state, pages, fill)
        assert delta is not None
        made.append(delta)
    kept = [words_of(delta, "test") or delta for delta in made]
    read = [parse(delta.bytes(), "test") for delta in made]
    mixed = [one if place % 2 else two for place, (one, two) in enumerate(zip(kept, read, strict=True))]
    for deltas in (made, kept, read, mixed):
        merged = merge(deltas, ADDRESS, "test")
        assert merged is not None
        assert (merged.before, merged.after) == (made[0].before, made[-1].after)
        assert merged.pages.tolist() == pages[-1:]
        assert not merged.has.any()
        data = start.copy()
        merged.apply_to(data, "test")
        assert np.array_equal(data, model.data)
        partly = merge(deltas[:3], ADDRESS, "test")
        assert partly is not None
        data = start.copy()
        partly.apply_to(data, "test")
        deltas[3] = deltas[3] if isinstance(deltas[3], Delta) else made[3]
        deltas[3].apply_to(data, "test")
        assert np.array_equal(data, model.data)


def test_each_quarter_has_a_keyframe_and_together_they_are_the_piece() -> None:
    rng = np.random.default_rng(6)
    pages = np.array([0, 7, QUARTER - 1, QUARTER, 3 * QUARTER + 9, PAGES - 1], np.uint16)
    rows = rng.integers(0, 256, (len(pages), PAGE), np.uint8)
    state = PieceState()
    keys = [parse(key.bytes(), "test") for key in keyframes(ADDRESS, pages, rows, state)]
    assert [key.pages.tolist() for key in keys] == [[0, 7, QUARTER - 1], [QUARTER], [3 * QUARTER + 9, PAGES - 1]]
    assert all(key.is_key and key.after == state.digest for key in keys)
    data = np.zeros((PAGES, PAGE), np.uint8)
    apply_all(keys, data, "test")
    assert np.array_equal(data[pages], rows)
    assert np.count_nonzero(data.any(axis=1)) == len(pages)
    assert np.flatnonzero(state.own).tolist() == pages.tolist()


def test_description_names_pages_and_bytes() -> None:
    model, state = Content(), PieceState()
    key = model.change(state, [0, 3], [b"abc", b"d"])
    delta = model.change(state, [0, 3, 4], [b"aXc", None, b"n"])
    assert key is not None
    assert delta is not None
    assert describe(key.bytes()).splitlines()[1] == "7f1234800000 3 bytes from 7f1234800000 to 7f1234800002"
    assert describe(delta.bytes()).splitlines()[1:] == [
        "7f1234800000 1 byte from 7f1234800001 to 7f1234800001",
        "7f1234803000 gone",
        "7f1234804000 new, 1 byte from 7f1234804000 to 7f1234804000",
    ]


def _moved(shift: int, size: int = 32) -> Delta:
    """Random pages, and the delta to the same bytes a little further on."""
    rng = np.random.default_rng(3)
    content = rng.bytes(size * PAGE)
    model, state = Content(), PieceState()
    pages = list(range(5, 5 + size))
    cut = lambda data: [data[start : start + PAGE] for start in range(0, size * PAGE, PAGE)]  # noqa: E731
    model.change(state, pages, cut(content))
    before = Content()
    before.own[:], before.data[:] = model.own, model.data
    delta = model.change(state, pages, cut(rng.bytes(shift) + content))
    assert delta is not None
    before.apply(delta)
    assert np.array_equal(before.data, model.data)
    return delta


@pytest.mark.parametrize("size", [32, 200])
def test_content_that_moves_becomes_a_patch(size: int) -> None:
    """What an XOR sees as noise, the old content as dictionary finds again; the blob and its text say so."""
    delta = _moved(11, size)
    assert delta.is_patch
    assert len(delta.payload) < size * PAGE // 16
    read = parse(delta.bytes(), "test")
    assert read.is_patch
    assert "patch of the piece" in describe(delta.bytes())
    assert describe(delta.bytes()).splitlines()[1] == "7f1234805000 rewritten"
    with pytest.raises(ImageError):
        read.rows("test")


@pytest.mark.parametrize("size", [16, 200])
def test_memory_that_is_cleared_is_a_patch(size: int) -> None:
    """The XOR is what was there, text of which it makes a tenth; the new content is nearly nothing."""
    rng = np.random.default_rng(8)
    text = b"".join(b"%08d\n item" % number for number in rng.integers(0, 100, size * PAGE // 14 + 1).tolist())
    old = np.frombuffer(text[: size * PAGE], np.uint8).reshape(size, PAGE)
    new = np.full((size, PAGE), 0xFF, np.uint8)
    number, payload = codec.pack(old ^ new, old=old)
    assert number == LINES
    assert len(payload) < len(codec.pack(old ^ new)[1]) / 4
    assert np.array_equal(unpack_patch(number, payload, old, "test"), new)


def test_pages_that_become_zeros_of_their_own_beside_noise() -> None:
    """As where a private page of a file is written over with zeros: no word of it changes."""
    rng = np.random.default_rng(9)
    old, new = np.zeros((2, 200, PAGE), np.uint8)
    new[2:12] = rng.integers(0, 256, (10, PAGE), np.uint8)
    number, payload = codec.pack(old ^ new, old=old)
    assert np.array_equal(codec.unpack(number, payload, 200, "test"), new)


@pytest.mark.parametrize("count", [32, 200])
def test_new_noise_is_no_patch(count: int) -> None:
    rng = np.random.default_rng(4)
    model, state = Content(), PieceState()
    pages = list(range(count))
    model.change(state, pages, [rng.bytes(PAGE) for _ in pages])
    delta = model.change(state, pages, [rng.bytes(PAGE) for _ in pages])
    assert delta is not None
    assert delta.codec == codec.RAW


def test_content_moves_between_lines_that_stay() -> None:
    """Where some lines of a page move and all others stay, only the first are coded; pages that do not change cost nothing."""
    rng = np.random.default_rng(5)
    old = rng.integers(0, 256, (300, PAGE), np.uint8)
    new = old.copy()
    new[::2, 640:1280] = np.roll(old[::2, 640:1280], 3, axis=1)
    number, payload = codec.pack(old ^ new, old=old)
    assert number == LINES
    assert len(payload) < 150 * 60
    assert np.array_equal(unpack_patch(number, payload, old, "test"), new)


@pytest.mark.parametrize("pages", [[0], [299], list(range(0, 300, 7)), list(range(300))])
def test_content_that_moved_from_page_to_page_is_found(pages: list[int]) -> None:
    """Pages that hold what others held, in another order and elsewhere in the page; old content may be read-only and not contiguous."""
    rng = np.random.default_rng(6)
    both = rng.integers(0, 256, (2, 300, PAGE), np.uint8)
    old, new = both[0], both[0].copy()
    new[pages] = np.roll(old[pages[::-1]], 100, axis=1)
    new[pages, :64] = 0
    used = (old ^ new).reshape(-1).view(np.uint64) != 0
    payload = pack_lines(old ^ new, old, used)
    assert len(payload) < 100 * len(pages) + 200
    spread = np.repeat(old, 2, axis=1)[:, ::2]
    spread.flags.writeable = False
    assert np.array_equal(unpack_patch(LINES, payload, spread, "test"), new)


def test_patches_of_whole_pages_are_read() -> None:
    """As former writers made them."""
    rng = np.random.default_rng(7)
    old = rng.integers(0, 256, (20, PAGE), np.uint8)
    new = np.roll(old.reshape(-1), 5).reshape(old.shape)
    payload = pack_over(new, old)
    assert len(payload) < new.nbytes // 4
    assert np.array_equal(unpack_patch(PATCH, payload, old, "test"), new)


@pytest.mark.parametrize("kind", ["cut", "longer", "bomb", "other dictionary", "claims"])
def test_hostile_patches_are_refused(kind: str) -> None:
    """A frame that is broken, makes more or less than the pages, or claims to: refused before memory is taken."""
    old = np.zeros((2, PAGE), np.uint8)
    good = pack_over(np.zeros(2 * PAGE, np.uint8), old)
    assert unpack_patch(PATCH, good, old, "test").shape == old.shape
    frame = {
        "cut": good[:-1],
        "longer": good + b"x",
        "bomb": zstandard.compress(bytes(1 << 28)),
        "other dictionary": zstandard.compress(bytes(PAGE)),
        "claims": b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 1 << 40),
    }[kind]
    with pytest.raises(ImageError):
        unpack_patch(PATCH, frame, old, "test")
    every = zstandard.compress(b"\xff" * 16)
    assert unpack_patch(LINES, struct.pack("<I", len(every)) + every + good, old, "test").shape == old.shape
    with pytest.raises(ImageError):
        unpack_patch(LINES, struct.pack("<I", len(every)) + every + frame, old, "test")


@pytest.mark.parametrize("bitmap", [b"", b"\xff" * 15, b"\xff" * 17, b"\0" * 16, b"\x80" + b"\0" * 15, bytes(1 << 28)])
def test_hostile_lines_are_refused(bitmap: bytes) -> None:
    """A bitmap that is too short or too long, names no line, or not as many as there are."""
    old = np.zeros((2, PAGE), np.uint8)
    packed = zstandard.compress(bitmap)
    frame = zstandard.compress(bytes(2 * PAGE))
    with pytest.raises(ImageError):
        unpack_patch(LINES, struct.pack("<I", len(packed)) + packed + frame, old, "test")


@pytest.mark.parametrize("payload", [b"", b"\0\0\0", bytes(4), b"\xff\xff\xff\xff", b"\xff\xff\xff\xff" + bytes(64)])
def test_lines_that_are_cut_off_are_refused(payload: bytes) -> None:
    with pytest.raises(ImageError):
        unpack_patch(LINES, payload, np.zeros((2, PAGE), np.uint8), "test")


def _blob(*, index: list[int], payload: bytes, codec: int = 1, hashes: int | None = None, count: int | None = None) -> bytes:
    held = len(index) if hashes is None else hashes
    head = struct.pack("<3sBBBHQQQ", b"VXD", 1, codec, 0, len(index) if count is None else count, ADDRESS, 0, 1)
    return head + struct.pack(f"<{len(index)}H", *index) + bytes(4 * held) + payload


GOOD = zstandard.compress(bytes(PAGE))


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"VXD\x01",
        b"XXX" + _blob(index=[0x4001], payload=GOOD)[3:],
        _blob(index=[], payload=b""),
        _blob(index=[0x4001], payload=GOOD, count=PAGES + 1),
        _blob(index=[0x4001], payload=GOOD).replace(struct.pack("<Q", ADDRESS), struct.pack("<Q", ADDRESS + PAGE)),
        _blob(index=[0x4001], payload=GOOD, count=2),
        _blob(index=[0x4002, 0x4001], payload=GOOD),
        _blob(index=[0x4001, 0x4001], payload=GOOD),
        _blob(index=[PAGES], payload=GOOD),
        _blob(index=[0xC001], payload=GOOD, hashes=0),
        _blob(index=[0x4001], payload=b"", hashes=0),
        _blob(index=[0x4001], payload=b"no frame"),
        _blob(index=[0x4001], payload=zstandard.compress(bytes(1 << 30))),
        _blob(index=[0x4001], payload=zstandard.compress(bytes(PAGE - 1))),
        _blob(index=[0x4001], payload=GOOD[:-1]),
        _blob(index=[0x4001], payload=GOOD + b"x"),
        _blob(index=[0x4001], payload=bytes(PAGE - 1), codec=0),
        _blob(index=[0x4001], payload=GOOD, codec=9),
        _blob(index=[0x4001], payload=zstandard.compress(bytes(63)), codec=2),
        _blob(index=[0x4001], payload=zstandard.compress(bytes(64 + 8)), codec=2),
        _blob(index=[0x4001], payload=zstandard.compress(b"\xff" * 64 + bytes(4088)), codec=3),
        _blob(index=[0x4001], payload=zstandard.compress(b"\xff" * 64 + bytes(4104)), codec=3),
        _blob(index=[0x4001], payload=zstandard.compress(b"\x80" + bytes(63 + 4)), codec=3),
        _blob(index=[0x4001], payload=b"no frame", codec=2),
    ],
)
def test_hostile_blobs_are_refused(blob: bytes) -> None:
    with pytest.raises(ImageError):
        parse(blob, "test").rows("test")


@pytest.mark.parametrize("lanes", [False, True])
@pytest.mark.parametrize("content", [bytes(64 + 8), b"\xff" * 64 + bytes(4088), b"\x80" + bytes(63 + 4), b"\x80" + bytes(63)])
def test_hostile_deltas_within_a_chain_are_refused(content: bytes, *, lanes: bool) -> None:
    """Small deltas of a chain are applied at once: none may take another's words."""
    good = parse(_blob(index=[0x4001], payload=GOOD), "test")
    words = zstandard.compress(b"\x80" + bytes(63) + b"12345678")
    fine = parse(_blob(index=[0x4002], payload=words, codec=2 + lanes), "test")
    data = np.zeros((PAGES, PAGE), np.uint8)
    apply_all([good, fine, fine, fine], data, "test")
    assert data[2, :9].tobytes() == b"12345678\0"
    bad = parse(_blob(index=[0x4003], payload=zstandard.compress(content), codec=2 + lanes), "test")
    with pytest.raises(HostileImage):
        apply_all([good, bad, fine], data, "test")


def test_a_frame_that_claims_much_is_refused_unread() -> None:
    """A frame of 13 bytes may claim 2^40 bytes: no memory is taken for it."""
    claims = b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 1 << 40)
    with pytest.raises(HostileImage):
        parse(_blob(index=[0x4001], payload=claims), "test").rows("test")


def test_a_newer_blob_is_called_newer() -> None:
    blob = bytearray(_blob(index=[0x4001], payload=GOOD))
    blob[3] = 2
    with pytest.raises(NewerFormat):
        parse(bytes(blob), "test")


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_read_or_refused(tail: bytes) -> None:
    for blob in (tail, b"VXD\x01" + tail, _blob(index=[0x4001], payload=b"")[:-4] + tail):
        try:
            parse(blob, "test").rows("test")
        except ImageError:
            continue
