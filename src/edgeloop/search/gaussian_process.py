"""Gaussian-process regression over genotypes: a distance for each gene, and how far each gene reaches is learned.

The kernel is Matern 3/2 of d with d^2 = sum over genes g of d_g^2 / l_g^2, with d_g from `edgeloop.search.encoding`.
Length scales and noise are not chosen but drawn from their posterior, some times, and every prediction is the mean of
these: with fewer results than genes the most probable ones alone would be far too sure of themselves. The prior
expects every single gene to matter the less the more genes there are (Hvarfner, Hellsten and Nardi 2024, "Vanilla
Bayesian optimization performs great in high dimensions"). It is normal in the logarithms, so that elliptical slice
sampling (Murray, Adams and MacKay 2010) draws from the posterior without any setting.
Rasmussen and Williams (2006), "Gaussian processes for machine learning", algorithm 2.1.
"""

from typing import Self

import numpy as np
from scipy import linalg

from edgeloop.search.encoding import Encoding

LENGTH_MEAN, LENGTH_SD = -0.75, 1.0
"""Of the logarithm of a column's length scale, besides half the logarithm of the number of columns. Shorter than for
continuous variables (sqrt(2) there): most genes are codes, with nothing between 0 and 1."""
NOISE_MEAN, NOISE_SD = np.log(1e-3), 2.0
"""Of the logarithm of the noise's variance, in units of the kernel's variance."""
LEAST_NOISE = 1e-5
"""Nothing is known better than to 0.3 % of that spread; without a limit, a law without noise has a posterior so
narrow that drawing from it takes forever."""
SPREAD = 1.5
"""So many times as much as the targets that are known the figure varies elsewhere. Results of a search were chosen, and
are more alike than what it has not looked at: without it, some searches stay where they are."""
FAR = 500.0
"""The largest squared distance that is told from larger ones."""
SHRINKS = 20
"""So often a step of the sampler is made shorter before it is given up."""
BURN_IN, THIN, DRAWS = 30, 4, 8
SUBSET = 200
"""Hyperparameters are drawn with at most so many points: each of some hundred likelihoods of n points takes n^3."""

BLOCK = 250
"""So many points are predicted at once: what that takes is a few times draws x points x results."""


class GaussianProcess:
    """Predicts a figure of genotypes that were not tried from those that were, once for each draw."""

    def __init__(self, encoding: Encoding) -> None:
        self.encoding = encoding

    def fit(self, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> Self:
        """Learn from points x [n, columns] (Encoding.encode) and their targets y [n]; n is at least 1."""
        self.x = np.asarray(x, float)
        self.level, self.scale = float(np.mean(y)), SPREAD * float(np.std(y)) or 1.0
        target = (np.asarray(y, float) - self.level) / self.scale
        some = np.unique(np.linspace(0, len(y) - 1, min(len(y), SUBSET)).astype(int))
        draws = self._posterior(self.x[some], target[some], rng)
        self.weights = np.array([weights for weights, _ in draws])
        squared = self.encoding.distance(self.x, self.x, self.weights)
        solved = [_solve(each, noise, target) for each, (_, noise) in zip(squared, draws, strict=True)]
        self.factors, self.alphas = zip(*solved, strict=True)
        return self

    def predict(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Means and standard deviations at points x [m, columns]: [draws, m] each; of the figure without its noise."""
        parts = [self._predict(x[first : first + BLOCK]) for first in range(0, max(1, len(x)), BLOCK)]
        means, variances = (np.concatenate(each, axis=1) for each in zip(*parts, strict=True))
        return self.level + self.scale * means, self.scale * np.sqrt(variances)

    def _predict(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Standardised means and variances, [draws, m] each."""
        means, solved = self._conditioned(x)
        variances = [np.maximum(1.0 - np.einsum("ij,ij->j", each, each), LEAST_NOISE) for each in solved]
        return means, np.array(variances)

    def joint(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Means [draws, m] and covariances [draws, m, m] at points x [m, columns]."""
        means, solved = self._conditioned(x)
        covariances = _matern(self.encoding.distance(x, x, self.weights))
        for covariance, each in zip(covariances, solved, strict=True):
            covariance -= each.T @ each
        return self.level + self.scale * means, self.scale**2 * covariances

    def _conditioned(self, x: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """For each draw the standardised means [draws, m], and L^-1 k [n, m] for the factor L and the covariances k."""
        covariances = _matern(self.encoding.distance(x, self.x, self.weights))
        means = np.array([each @ alpha for each, alpha in zip(covariances, self.alphas, strict=True)])
        return means, [
            linalg.solve_triangular(factor, each.T, lower=True, check_finite=False)
            for factor, each in zip(self.factors, covariances, strict=True)
        ]

    def _posterior(self, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> list[tuple[np.ndarray, float]]:
        """Draws of the columns' weights and the noise's variance, by elliptical slice sampling."""
        columns = self.encoding.columns
        squares = self.encoding.distances(x, x).reshape(columns, -1)
        mean = np.append(np.full(columns, LENGTH_MEAN + 0.5 * np.log(max(columns, 1))), NOISE_MEAN)
        deviation = np.append(np.full(columns, LENGTH_SD), NOISE_SD)

        def hyperparameters(z: np.ndarray) -> tuple[np.ndarray, float]:
            logarithms = mean + deviation * z
            return np.exp(-2.0 * logarithms[:-1]), float(np.exp(logarithms[-1]))

        def likelihood(z: np.ndarray) -> float:
            weights, noise = hyperparameters(z)
            try:
                factor, alpha = _solve((weights @ squares).reshape(len(y), len(y)), noise, y)
            except linalg.LinAlgError:
                return -np.inf
            return float(-0.5 * y @ alpha - np.log(np.diag(factor)).sum())

        z = np.zeros(columns + 1)
        current = likelihood(z)
        draws = []
        for step in range(BURN_IN + THIN * DRAWS):
            other, least = rng.standard_normal(len(z)), current + np.log(rng.random())
            angle = rng.uniform(0.0, 2.0 * np.pi)
            low, high = angle - 2.0 * np.pi, angle
            for _ in range(SHRINKS):
                candidate = z * np.cos(angle) + other * np.sin(angle)
                value = likelihood(candidate)
                if value > least:
                    z, current = candidate, value
                    break
                low, high = (angle, high) if angle < 0 else (low, angle)
                angle = rng.uniform(low, high)
            if step >= BURN_IN and (step - BURN_IN) % THIN == THIN - 1:
                draws.append(hyperparameters(z))
        return draws


def _solve(squared: np.ndarray, noise: float, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lower factor L of K = L L' at squared distances, and K^-1 target."""
    covariance = _matern(squared)
    covariance[np.diag_indices_from(covariance)] += noise + LEAST_NOISE
    factor = linalg.cholesky(covariance, lower=True, overwrite_a=True, check_finite=False)
    return factor, linalg.cho_solve((factor, True), target, check_finite=False)


def _matern(squared: np.ndarray) -> np.ndarray:
    # As far as that everything is a stranger; much smaller numbers take processors a hundred times as long.
    root = np.sqrt(3.0 * np.clip(squared, 0.0, FAR))
    return (1.0 + root) * np.exp(-root)
