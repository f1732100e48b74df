"""The split: whole trajectories, both kinds on each side, a function of the seed alone."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from latticezoo.datasets.split import SPLITS, split_by_group
from latticezoo.symmetry.errors import InputError


def labels(trajectories, frames, random, order=0):
    """Groups and kinds of a dataset, with its samples in some order."""
    groups = torch.arange(trajectories).repeat_interleave(frames)
    groups = torch.cat([groups, trajectories + torch.arange(random)])
    kind = (groups < trajectories).long()
    shuffled = torch.randperm(len(groups), generator=torch.Generator().manual_seed(order))
    return groups[shuffled], kind[shuffled]


shapes = st.tuples(
    st.integers(3, 12), st.integers(1, 7), st.integers(3, 25), st.integers(0, 1 << 30)
)
fractions = st.sampled_from([0.0, 0.05, 0.1, 0.25, 1 / 3])


@given(shapes, fractions, fractions, st.integers(0, 1 << 40))
def test_every_sample_is_on_one_side_and_every_trajectory_whole(shape, val, test, seed):
    groups, kind = labels(*shape)
    splits = split_by_group(groups, kind, val_fraction=val, test_fraction=test, seed=seed)
    assert list(splits) == list(SPLITS)
    together = torch.cat(list(splits.values()))
    assert torch.equal(together.sort().values, torch.arange(len(groups)))
    sides = [set(groups[rows].tolist()) for rows in splits.values()]
    assert sum(map(len, sides)) == len(set(groups.tolist()))


@given(shapes, fractions, fractions, st.integers(0, 1 << 40))
def test_each_kind_is_held_out_in_proportion(shape, val, test, seed):
    groups, kind = labels(*shape)
    splits = split_by_group(groups, kind, val_fraction=val, test_fraction=test, seed=seed)
    for which, number in ((1, shape[0]), (0, shape[2])):
        for name, fraction in (("val", val), ("test", test)):
            rows = splits[name][kind[splits[name]] == which]
            count = len(groups[rows].unique())
            assert abs(count - fraction * number) <= 1
            assert (count > 0) == (fraction > 0)
        assert (kind[splits["train"]] == which).any()


@given(shapes, st.integers(0, 1 << 40))
def test_the_split_depends_on_the_groups_not_on_their_order(shape, seed):
    both = []
    for order in (shape[3], shape[3] + 1):
        groups, kind = labels(*shape[:3], order)
        splits = split_by_group(groups, kind, val_fraction=0.2, test_fraction=0.2, seed=seed)
        both.append({name: set(groups[rows].tolist()) for name, rows in splits.items()})
    assert both[0] == both[1]


def test_another_seed_gives_another_split():
    groups, kind = labels(10, 5, 50)
    chosen = {
        tuple(
            split_by_group(groups, kind, val_fraction=0.1, test_fraction=0.1, seed=seed)[
                "test"
            ].tolist()
        )
        for seed in range(20)
    }
    assert len(chosen) == 20


def test_everything_can_be_test():
    groups, kind = labels(2, 3, 1)
    splits = split_by_group(groups, kind, val_fraction=0, test_fraction=1, seed=0)
    assert [len(splits[name]) for name in SPLITS] == [0, 0, 7]


def test_bad_fractions_and_too_few_groups_are_refused():
    groups, kind = labels(3, 3, 3)
    for val, test, words in (
        (-0.1, 0.1, "val_fraction is -0.1"),
        (0.1, float("nan"), "test_fraction is nan"),
        (0.6, 0.6, "add up to more than 1"),
    ):
        with pytest.raises(InputError, match=words):
            split_by_group(groups, kind, val_fraction=val, test_fraction=test, seed=0)
    groups, kind = labels(1, 5, 0)
    with pytest.raises(InputError, match=r"hold 1 independent .* too few for a val split"):
        split_by_group(groups, kind, val_fraction=0.1, test_fraction=0.1, seed=0)
