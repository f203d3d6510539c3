"""Mixing: laws of partners and coefficients, what becomes of the pixels, and the batches that are recorded."""

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from scipy import stats

from experiments.data import ImageData, digits
from experiments.mixing import KINDS, Mixing, MixingPlan, epoch_pairs, flip_and_crop, mix_images, mixed_batches


def pairs_of(mixing: Mixing, samples: int = 4000, batch_size: int = 100, seed: int = 0, **settings) -> list[MixingPlan]:
    settings = {"image_size": (16, 16)} | settings
    return list(epoch_pairs(mixing, samples, batch_size, np.random.default_rng(seed), **settings))


def joined(pairs: list[MixingPlan], name: str) -> np.ndarray:
    return torch.cat([getattr(batch, name) for batch in pairs]).numpy()


@pytest.fixture(scope="module")
def data() -> ImageData:
    return digits()


@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_visits_each_sample_once_and_drops_the_last_part(kind: str):
    pairs = pairs_of(Mixing(kind), samples=1030)
    first = joined(pairs, "first")
    assert [len(batch.first) for batch in pairs] == [100] * 10
    assert len(np.unique(first)) == 1000
    assert first.max() < 1030
    assert not np.array_equal(first, np.sort(first))
    assert all(batch.lam.dtype == torch.float32 for batch in pairs)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
@pytest.mark.parametrize("kind", ["mixup", "manifold"])
def test_lam_is_beta_and_partners_are_uniform(kind: str, alpha: float):
    pairs = pairs_of(Mixing(kind, alpha))
    lam, first, second = (joined(pairs, name) for name in ("lam", "first", "second"))
    assert stats.kstest(lam, stats.beta(alpha, alpha).cdf).pvalue > 1e-3
    assert stats.kstest(second, stats.uniform(0, 4000).cdf).pvalue > 1e-3
    # Partners are drawn with replacement, from all samples, and do not know of the first ones or of lam.
    assert len(np.unique(second)) == pytest.approx(4000 * (1 - np.exp(-1)), rel=0.03)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.06
    assert abs(np.corrcoef(lam, second)[0, 1]) < 0.06
    assert abs(np.corrcoef(lam, first)[0, 1]) < 0.06


@pytest.mark.parametrize("kind", ["mixup", "cutmix", "manifold"])
def test_lam_is_of_a_sample_or_of_a_batch(kind: str):
    each, one = pairs_of(Mixing(kind)), pairs_of(Mixing(kind, lam_per="batch"))
    assert all(len(batch.lam.unique()) > 10 for batch in each)
    assert all(len(batch.lam.unique()) == 1 and len(batch.lam) == 100 for batch in one)
    assert len(np.unique(joined(one, "lam"))) > 20
    assert all(len(batch.second.unique()) > 50 for batch in one)
    if kind == "cutmix":
        assert all(len(batch.boxes.unique(dim=0)) == 1 for batch in one)
        assert all(len(batch.boxes.unique(dim=0)) > 50 for batch in each)


def test_without_mixing_a_sample_is_its_own_partner():
    for batch in pairs_of(Mixing("none")):
        assert torch.equal(batch.first, batch.second)
        assert batch.lam.eq(1).all()
        assert (batch.boxes, batch.stage) == (None, 0)


def test_manifold_mixup_draws_a_stage_for_each_batch():
    pairs = pairs_of(Mixing("manifold"), samples=40000, stages=4)
    counts = np.bincount([batch.stage for batch in pairs], minlength=4)
    assert len(counts) == 4
    assert stats.chisquare(counts).pvalue > 1e-3
    assert {batch.stage for kind in ("mixup", "cutmix", "none") for batch in pairs_of(Mixing(kind), stages=4)} == {0}


def test_pairs_follow_the_generator_and_nothing_else():
    for kind in KINDS:
        one, same, other = (pairs_of(Mixing(kind), seed=seed, stages=3) for seed in (5, 5, 6))
        for name in ("first", "second", "lam"):
            assert np.array_equal(joined(one, name), joined(same, name))
        assert not np.array_equal(joined(one, "first"), joined(other, "first"))


def test_some_rows_of_pairs_are_pairs():
    (batch,) = pairs_of(Mixing("cutmix"), samples=100)
    part = batch.slice(slice(20, 50))
    for name in ("first", "second", "lam", "boxes"):
        assert torch.equal(getattr(part, name), getattr(batch, name)[20:50])
    (batch,) = pairs_of(Mixing("manifold"), samples=100, stages=50, seed=3)
    assert batch.slice(slice(3)).stage == batch.stage > 0


@given(
    seed=st.integers(0, 2**32),
    alpha=st.sampled_from([0.05, 0.5, 1.0, 10.0]),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    lam_per=st.sampled_from(["sample", "batch"]),
)
def test_cutmix_keeps_the_share_lam_of_the_first_image(seed: int, alpha: float, size: tuple[int, int], lam_per: str):
    (batch,) = pairs_of(Mixing("cutmix", alpha, lam_per), 30, 30, seed, image_size=size)
    top, bottom, left, right = batch.boxes.unbind(1)
    assert bool((top >= 0).all() and (top <= bottom).all() and (bottom <= size[0]).all())
    assert bool((left >= 0).all() and (left <= right).all() and (right <= size[1]).all())
    mixed = mix_images(torch.ones(30, 2, *size), torch.zeros(30, 2, *size), batch)
    torch.testing.assert_close(mixed.mean((1, 2, 3)), batch.lam)
    for i in range(0, 30, 7):
        t, b, m, r = batch.boxes[i].tolist()
        by_hand = torch.ones(size)
        by_hand[t:b, m:r] = 0
        assert torch.equal(mixed[i], by_hand.expand(2, -1, -1))


def test_boxes_have_about_the_area_that_lam_asks_for_and_lie_anywhere():
    mixing, size = Mixing("cutmix", 4.0), (100, 50)
    pairs = pairs_of(mixing, image_size=size)
    boxes = joined(pairs, "boxes")
    height, width = boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]
    inside = (boxes[:, 0] > 0) & (boxes[:, 1] < 100) & (boxes[:, 2] > 0) & (boxes[:, 3] < 50)
    assert 0.05 < inside.mean() < 0.5
    # In the image's proportions where the border cuts nothing off.
    assert np.abs(height[inside] / 2 - width[inside]).max() <= 1.5
    assert abs((boxes[:, 0] + boxes[:, 1]).mean() / 200 - 0.5) < 0.01
    # The border only ever takes from the box, so that lam exceeds its Beta law.
    lam = joined(pairs, "lam")
    assert lam.mean() > 0.5
    assert stats.kstest(lam, stats.beta(4, 4).cdf, alternative="greater").pvalue > 0.99


def test_cutmix_takes_pixels_and_mixup_averages_them():
    first, second = torch.randn(2, 6, 3, 5, 4)
    lam = torch.rand(6)
    pairs = MixingPlan(torch.arange(6), torch.arange(6), lam)
    mixed = mix_images(first, second, pairs)
    for i in range(6):
        torch.testing.assert_close(mixed[i], lam[i] * first[i] + (1 - lam[i]) * second[i])
    boxes = torch.tensor([[0, 5, 0, 4], [2, 2, 0, 4], [1, 3, 2, 4], [0, 1, 0, 1], [4, 5, 3, 4], [0, 5, 1, 2]])
    pasted = mix_images(first, second, MixingPlan(torch.arange(6), torch.arange(6), lam, boxes))
    assert torch.equal(pasted[0], second[0])
    assert torch.equal(pasted[1], first[1])
    assert torch.equal(pasted[2, :, 1:3, 2:4], second[2, :, 1:3, 2:4])
    assert torch.equal(pasted[2, :, :1], first[2, :, :1])
    assert torch.equal(pasted[5, :, :, 1], second[5, :, :, 1])


def shifts_of(image: torch.Tensor, output: torch.Tensor, padding: int) -> set[tuple[int, int, bool]]:
    """Return every (top, left, mirrored) that makes `output` of the padded image, by a loop over all."""
    C, H, W = image.shape
    padded = torch.zeros(C, H + 2 * padding, W + 2 * padding, dtype=image.dtype)
    padded[:, padding : padding + H, padding : padding + W] = image
    found = set()
    for top in range(2 * padding + 1):
        for left in range(2 * padding + 1):
            window = padded[:, top : top + H, left : left + W]
            found |= {(top, left, False)} if torch.equal(window, output) else set()
            found |= {(top, left, True)} if torch.equal(window.flip(2), output) else set()
    return found


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 9)])
def test_augmented_images_are_windows_of_the_padded_ones(shape: tuple[int, int, int]):
    images = torch.from_numpy(np.random.default_rng(0).integers(1, 256, (150, *shape), dtype=np.uint8))
    output = flip_and_crop(images, np.random.default_rng(1), padding=2)
    assert (output.shape, output.dtype) == (images.shape, torch.uint8)
    found = []
    for image, got in zip(images, output, strict=True):
        (shift,) = shifts_of(image, got, 2)
        found.append(shift)
    # Every shift and both hands occur.
    assert {top for top, _, _ in found} == {left for _, left, _ in found} == set(range(5))
    assert 45 < sum(mirrored for _, _, mirrored in found) < 105
    assert len({(top, left) for top, left, _ in found}) == 25
    assert torch.equal(flip_and_crop(images, np.random.default_rng(1), padding=2), output)
    assert not torch.equal(flip_and_crop(images, np.random.default_rng(2), padding=2), output)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_batches(data: ImageData, kind: str):
    one, same, other = (list(mixed_batches(data, Mixing(kind), 700, seed=seed)) for seed in (0, 0, 1))
    assert [len(batch.lam) for batch in one] == [128] * 6
    for first, second in zip(one, same, strict=True):
        for name in ("inputs", "class_a", "class_b", "lam"):
            assert torch.equal(getattr(first, name), getattr(second, name))
    assert not torch.equal(one[0].class_a, other[0].class_a)


def test_recorded_inputs_are_the_mixed_standardised_images(data: ImageData):
    small = data.subset(50)
    (batch,) = mixed_batches(small, Mixing("none"), 50, seed=0)
    assert (batch.lam == 1).all()
    assert torch.equal(batch.class_a, batch.class_b)
    whole = small.standardise(small.train_images).flatten(1)
    distance = torch.cdist(batch.inputs.flatten(1).double(), whole.double())
    assert distance.amin(1).max() < 1e-3
    assert sorted(distance.argmin(1).tolist()) == list(range(50))
    assert torch.equal(small.train_classes[distance.argmin(1)], batch.class_a)
    # Mixed ones lie on the line between one image of each class.
    (mixed,) = mixed_batches(small, Mixing(), 50, seed=0)
    for x, a, b, lam in zip(mixed.inputs.flatten(1), mixed.class_a, mixed.class_b, mixed.lam, strict=True):
        ends = [whole[small.train_classes == k] for k in (a, b)]
        candidates = lam * ends[0][:, None] + (1 - lam) * ends[1][None]
        assert (candidates - x).abs().amax(2).min() < 1e-5


@pytest.mark.parametrize("kind", ["mixup", "cutmix", "manifold"])
@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("split", ["train", "test"])
def test_pairs_are_of_the_classes_that_were_asked_for(data: ImageData, kind: str, same: bool, split: str):
    batches = list(mixed_batches(data, Mixing(kind), 1000, seed=0, same_class=same, split=split))
    assert all(bool((batch.class_a == batch.class_b).all()) == same for batch in batches)
    if not same:
        assert not any(bool((batch.class_a == batch.class_b).any()) for batch in batches)
        pairs = {(int(a), int(b)) for batch in batches for a, b in zip(batch.class_a, batch.class_b, strict=True)}
        assert len(pairs) == 90
    natural = mixed_batches(data, Mixing(kind), 1000, seed=0, split=split)
    shares = torch.cat([batch.class_a == batch.class_b for batch in natural]).float().mean()
    assert 0.06 < shares < 0.14


def test_bad_arguments_are_named(data: ImageData):
    for settings, named in (({"kind": "mix"}, "kind"), ({"alpha": 0}, "alpha"), ({"lam_per": "epoch"}, "lam_per")):
        with pytest.raises(ValueError, match=f"^{named}: got"):
            Mixing(**settings)
    for settings, named in (
        ({"split": "all"}, "split"),
        ({"samples": 0}, "samples"),
        ({"batch_size": 0}, "batch_size"),
    ):
        with pytest.raises(ValueError, match=f"^{named}: got"):
            next(mixed_batches(data, Mixing(), **({"samples": 5, "seed": 0} | settings)))
    with pytest.raises(ValueError, match="^same_class: got False"):
        next(mixed_batches(data, Mixing("none"), 5, seed=0, same_class=False))
