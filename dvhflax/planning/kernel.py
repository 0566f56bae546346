"""Photon pencil kernel of Nyholm et al., and its fit by Gaussians.

T. Nyholm, J. Olofsson, A. Ahnesjo, M. Karlsson, "Photon pencil kernel
parameterisation based on beam quality index", Radiother Oncol 78:347 (2006),
with the corrigendum 98:286 (2011): a1 and a2 are swapped in print. Constants
below are those of a beam quality TPR20,10 = 0.67, about 6 MV.

A sum of Gaussians makes the dose of a rectangular beamlet a product of two
one-dimensional profiles, which is what makes the dose calculation fast.
"""

import dataclasses
import functools

import numpy as np
from scipy import optimize, special

_A = (0.004416, -2.659765, -0.05435, 0.000119, 0.172128)
_B = (0.032456, -0.005754, -0.055589, 0.000122, 1.468503)
_a = (-0.010263, 4.888617)
_b = (0.215732, -0.261719, -0.048748, 0.000462, 0.965199)

# Standard deviations in mm of the fitted Gaussians, before the penumbra is
# added: from the unscattered primary to the scatter of a whole pelvis.
SCATTER_SIGMA_MM = (0.0, 1.0, 2.2, 5.0, 11.0, 25.0, 60.0)
# Source size and leaf transmission blur the fluence by this much (mm).
PENUMBRA_SIGMA_MM = 2.12

# The kernel falls off within 2 mm of the surface, so the table is fine.
DEPTH_STEP_MM = 1.0
MAX_DEPTH_MM = 520.0


@dataclasses.dataclass(frozen=True)
class GaussianKernel:
  """Pencil kernel as a depth-dependent sum of normalised 2-D Gaussians.

  Attributes:
    sigma_mm: `[K]` standard deviations, penumbra included.
    weights: `[D, K]` weight of each Gaussian at depth `i * depth_step_mm`.
    depth_step_mm: distance between two rows of `weights`.
  """

  sigma_mm: np.ndarray
  weights: np.ndarray
  depth_step_mm: float


def pencil_terms(
  depth_cm: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
  """A, a, B, b of k(r, d) = [A exp(-a r) + B exp(-b r)] / r (r in cm).

  Args:
    depth_cm: depths in water of any shape.

  Returns:
    Four arrays of the depths' shape; a and b per cm.
  """
  d = np.asarray(depth_cm, np.float64)

  def build_up(
    c1: float, c2: float, c3: float, c4: float, c5: float
  ) -> np.ndarray:
    rise = 1 - np.exp(c2 * np.sqrt(d**2 + c5**2))
    return c1 * rise * np.exp(c3 * d + c4 * d**2)

  a = _a[1] + _a[0] * d
  b = build_up(*_b)
  return build_up(*_A) * a, a, build_up(*_B) * b, b


def pencil_profile(
  depth_cm: float, radius_cm: np.ndarray, blur_cm: float
) -> np.ndarray:
  """The kernel convolved with a Gaussian: dose of a blurred pencil beam.

  exp(-a r)/r has the two-dimensional Fourier transform
  2 pi / sqrt(a^2 + q^2), so the convolution is a Hankel integral.

  Args:
    depth_cm: depth in water.
    radius_cm: `[R]` distances from the axis.
    blur_cm: standard deviation of the Gaussian.

  Returns:
    `[R]` dose per unit of energy fluence.
  """
  amp_a, a, amp_b, b = pencil_terms(np.asarray(depth_cm))
  q, measure = _hankel_nodes(blur_cm)
  transform = amp_a / np.hypot(a, q) + amp_b / np.hypot(b, q)
  spectrum = transform * np.exp(-((blur_cm * q) ** 2) / 2) * measure * q
  return special.j0(np.outer(radius_cm, q)) @ spectrum


def disc_dose(depth_cm: float, radius_cm: np.ndarray) -> np.ndarray:
  """Dose on the axis of circular fields of `[R]` radii, without blur."""
  amp_a, a, amp_b, b = pencil_terms(np.asarray(depth_cm))
  radius = np.asarray(radius_cm)
  return (
    -2
    * np.pi
    * (amp_a / a * np.expm1(-a * radius) + amp_b / b * np.expm1(-b * radius))
  )


def fit_gaussians(depth_cm: float) -> np.ndarray:
  """Non-negative weights of the Gaussians that fit the kernel at a depth.

  Two sets of equations are fitted together: the profile of a blurred pencil
  beam relative to its peak, which is the dose near a beamlet, and the dose
  on the axis of circular fields relative to the widest, which holds the
  scatter of far beamlets.

  Args:
    depth_cm: depth in water.

  Returns:
    `[K]` weights, in the kernel's dose per unit of energy fluence.
  """
  sigma = gaussian_sigmas_mm() / 10
  scatter = np.array(SCATTER_SIGMA_MM) / 10
  near, far = _fit_radii_cm()
  pencil = pencil_profile(depth_cm, near, PENUMBRA_SIGMA_MM / 10)
  gaussians = np.exp(-((near[:, None] / sigma) ** 2) / 2)
  gaussians /= 2 * np.pi * sigma**2
  discs = disc_dose(depth_cm, far)
  with np.errstate(divide='ignore'):
    gaussian_discs = -np.expm1(-((far[:, None] / scatter) ** 2) / 2)
  rows = np.concatenate([gaussians / pencil[0], gaussian_discs / discs[-1]])
  goal = np.concatenate([pencil / pencil[0], discs / discs[-1]])
  return optimize.nnls(rows, goal)[0]


@functools.cache
def gaussian_kernel() -> GaussianKernel:
  """The kernel's table over depth, fitted once per process."""
  depths = np.arange(0, MAX_DEPTH_MM + DEPTH_STEP_MM, DEPTH_STEP_MM)
  weights = np.stack([fit_gaussians(depth / 10) for depth in depths])
  return GaussianKernel(
    sigma_mm=gaussian_sigmas_mm().astype(np.float32),
    weights=weights.astype(np.float32),
    depth_step_mm=DEPTH_STEP_MM,
  )


def gaussian_sigmas_mm() -> np.ndarray:
  """`[K]` standard deviations of the blurred Gaussians."""
  return np.hypot(np.array(SCATTER_SIGMA_MM), PENUMBRA_SIGMA_MM)


@functools.cache
def _fit_radii_cm() -> tuple[np.ndarray, np.ndarray]:
  """Radii of the pencil's profile and of the circular fields, in cm."""
  near = np.concatenate([np.arange(0, 2, 0.05), np.geomspace(2, 20, 30)])
  return near, np.geomspace(0.5, 25, 40)


@functools.cache
def _hankel_nodes(blur_cm: float) -> tuple[np.ndarray, np.ndarray]:
  """Quadrature nodes and weights up to where the blur leaves nothing.

  The substitution q = u^2 crowds the nodes where the broad scatter term
  varies, near q = 0.
  """
  u, weight = np.polynomial.legendre.leggauss(600)
  top = np.sqrt(8 / blur_cm)
  u, weight = (u + 1) / 2 * top, weight / 2 * top
  return u**2, weight * 2 * u
