"""The policy of chains, in simulation: what is written twice, and what a reader must read, stay bounded."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vcsimg.store.policy import Merge, Rebase, Weighed, plan, rest


def simulate(captures: int, delta: int, pages: int, merged: Callable[[int], int], key: int) -> tuple[float, int, int]:
    """(bytes written / bytes of the plain deltas, longest chain, most bytes in a chain) for a piece that changes each time.

    merged(count): bytes of a delta that is made of `count` single ones.
    """
    links = [Weighed(0, "key", b"", key, 512, 512)]
    written = longest = heaviest = 0
    for version in range(1, captures + 1):
        due = plan(links, 7)
        if isinstance(due, Merge):
            first, last = links[due.first - 1].version, links[due.last - 1].version
            size = merged(last - first)
            written += size
            links[due.first : due.last] = [Weighed(last, "xor", b"", size, min(512, pages * (last - first)), 0)]
        elif isinstance(due, Rebase):
            written += key
            links = [Weighed(version - 1, "key", b"", key, 512, 512)]
        links.append(Weighed(version, "xor", b"", delta, pages, 0))
        written += delta
        longest = max(longest, len(links))
        heaviest = max(heaviest, sum(link.size for link in links))
    return written / (captures * delta), longest, heaviest


@pytest.mark.parametrize(
    ("delta", "pages", "merged", "key", "most_written", "longest"),
    [
        pytest.param(120, 3, lambda count: 150, 400_000, 1.2, 60, id="a counter"),
        pytest.param(150, 3, lambda count: min(60 + 25 * count, 12_000), 400_000, 1.8, 60, id="few bytes of few pages"),
        pytest.param(4200, 1, lambda count: 4200 * min(count, 512), 2_000_000, 2.6, 110, id="whole random pages"),
        pytest.param(2_000_000, 512, lambda count: 2_000_000, 2_000_000, 1.4, 8, id="everything each time"),
        pytest.param(500, 40, lambda count: min(6 * 512 + 40 * count, 300_000), 1_200_000, 2.2, 60, id="bytes in many pages"),
    ],
)
def test_chains_stay_bounded(
    delta: int, pages: int, merged: Callable[[int], int], key: int, most_written: float, longest: int
) -> None:
    ratio, chain, heaviest = simulate(10_000, delta, pages, merged, key)
    assert ratio <= most_written
    assert chain <= longest
    assert heaviest <= 7 * max(key, 8192)


def test_a_growing_piece_is_written_once() -> None:
    """A heap that grows by whole pages: what is new is not rewritten because the first keyframe was small."""
    links = [Weighed(0, "key", b"", 200, 1, 1)]
    for version in range(1, 40):
        assert not isinstance(plan(links, 7), Rebase)
        links.append(Weighed(version, "xor", b"", 50_000, 13, 13))


def test_pieces_that_change_together_are_not_due_together() -> None:
    """512 pieces that all change at every capture: no capture has more than a share of them to merge."""
    links = {number: [Weighed(0, "key", b"", 10_000, 10, 10)] for number in range(512)}
    most = 0
    for version in range(1, 80):
        due = 0
        for number, chain in links.items():
            step = plan(chain, number)
            if isinstance(step, Merge):
                due += 1
                chain[step.first : step.last] = [Weighed(chain[step.last - 1].version, "xor", b"", 200, 10, 0)]
            chain.append(Weighed(version, "xor", b"", 100, 5, 0))
        most = max(most, due)
    assert 0 < most <= 150


@pytest.mark.parametrize("number", [0, 7, 100, 511])
def test_a_chain_at_rest_is_due_for_nothing(number: int) -> None:
    """As long as rest() says, and not much longer: else somebody looks in vain at each capture."""
    links = [Weighed(0, "key", b"", 400_000, 512, 512)]
    calm, looks = 0, 0
    for version in range(1, 3000):
        due = plan(links, number)
        if calm:
            assert due is None
            calm -= 1
        else:
            looks += 1
            calm = rest(links, number) if due is None else 0
        if isinstance(due, Merge):
            last = links[due.last - 1].version
            links[due.first : due.last] = [Weighed(last, "xor", b"", 150, 3, 0)]
        assert not isinstance(due, Rebase)
        links.append(Weighed(version, "xor", b"", 120, 3, 0))
    assert looks < 3000 / 4
