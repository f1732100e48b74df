"""Linear sums of path moments, fit to the training data in one pass."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from latticezoo.zoo.layers.path_moments import PathMoments, StandardMoments

#: Ridge of the fit to sums over all sites, as a share of the mean square of the moments. There is
#: one such sum a sample, and some are nearly the same in all of them: with 1e-6 the energy of a
#: torus without any flux, which no sample was, came out wrong by twice the spread (Z2, 12 × 12).
_RIDGE = 1e-4


class PathSeries(nn.Module):
    r"""What targets are as linear sums of the path moments: the kernel polynomial method, learned.

    Weights come from ridge regression before training and stay as they are; a network adds what is
    not linear. Of the decorrelated moments x the weights are the means of x y over the training
    data, which is ridge regression on the plain ones, with the λ of their decorrelation. Targets of
    the whole lattice are fit to the means of x over the sites.

    Args:
        moments: The moments that go in.
        sites: Number of targets that are sums over sites: those of the whole lattice, then those of
            the sites.
        links: Number of targets on links.
        currents: Number of currents.
    """

    def __init__(self, moments: PathMoments, sites: int, links: int, currents: int) -> None:
        super().__init__()
        self.register_buffer("site_weights", torch.zeros(moments.site_count, sites))
        self.register_buffer("link_weights", torch.zeros(moments.link_count, links))
        self.register_buffer("current_weights", torch.zeros(moments.link_count, currents))

    def sites(self, moments: StandardMoments) -> Tensor:
        """``[…, sites]``."""
        return moments.sites @ self.get_buffer("site_weights")

    def links(self, moments: StandardMoments) -> Tensor:
        """``[…, 2, links]``."""
        return moments.links @ self.get_buffer("link_weights")

    def currents(self, moments: StandardMoments) -> Tensor:
        """``[…, 2, currents]``; zero where moments have no imaginary part."""
        weights = self.get_buffer("current_weights")
        if moments.currents is None:
            return moments.links.new_zeros(*moments.links.shape[:-1], weights.shape[1])
        return moments.currents @ weights

    def fit(self, samples: Iterable[tuple[StandardMoments, dict[str, Tensor]]]) -> None:
        """Set the weights.

        Args:
            samples: Moments, and standardized targets by where they live: ``global`` ``[B, n]``,
                ``site`` ``[B, N, n]``, ``link`` and ``current`` ``[B, N, 2, n]``; those that are
                missing get no weights.
        """
        sums: dict[str, Tensor] = {}

        def add(name: str, one: Tensor, two: Tensor) -> None:
            one, two = one.double().flatten(0, -2), two.double().flatten(0, -2)
            found = one.mT @ two
            sums[name] = sums[name] + found if name in sums else found

        counts = dict.fromkeys(("global", "site", "link", "current"), 0)
        for moments, targets in samples:
            of = {
                "global": moments.sites.mean(1),
                "site": moments.sites,
                "link": moments.links,
                "current": moments.currents,
            }
            for name, values in targets.items():
                given = of[name]
                if given is not None and values.shape[-1] and given.shape[-1]:
                    add(name, given, values)
                    counts[name] += values[..., 0].numel()
                    if name == "global":
                        add("gram", given, given)
        fitted = {name: sums[name] / counts[name] for name in counts if name in sums}
        if "global" in fitted:
            gram = sums["gram"] / counts["global"]
            ridge = _RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
            fitted["global"] = torch.linalg.solve(gram + ridge.to(gram.device), fitted["global"])
        sites = [fitted[name] for name in ("global", "site") if name in fitted]
        for name, weights in (
            ("site", torch.cat(sites, 1) if sites else None),
            ("link", fitted.get("link")),
            ("current", fitted.get("current")),
        ):
            if weights is not None:
                self.get_buffer(f"{name}_weights").copy_(weights)
