"""Predictions: theory only, never a simulation. ``compare`` is where the two meet."""

from langevin.predict.chain import Chain, chain
from langevin.predict.chain_momentum import MomentumChain
from langevin.predict.chain_plane import PlaneChain
from langevin.predict.critical import CriticalNoise, critical_noise
from langevin.predict.escape import Escape, escape
from langevin.predict.finite_step import FiniteStep, finite_step
from langevin.predict.fokker_planck import FokkerPlanck, fokker_planck
from langevin.predict.gaussian import GaussianMixture
from langevin.predict.gibbs import boltzmann_gibbs
from langevin.predict.grid_law import GridLaw
from langevin.predict.laplace import laplace
from langevin.predict.line import GibbsLine
from langevin.predict.plane import GibbsPlane
from langevin.predict.quadratic import Quadratic, quadratic
from langevin.predict.scaling import Breaking, Scaling, scaling
from langevin.predict.smoothed import SmoothedLaw
from langevin.predict.smoothed_plane import SmoothedPlane

__all__ = [
    "Breaking",
    "Chain",
    "CriticalNoise",
    "Escape",
    "FiniteStep",
    "FokkerPlanck",
    "GaussianMixture",
    "GibbsLine",
    "GibbsPlane",
    "GridLaw",
    "MomentumChain",
    "PlaneChain",
    "Quadratic",
    "Scaling",
    "SmoothedLaw",
    "SmoothedPlane",
    "boltzmann_gibbs",
    "chain",
    "critical_noise",
    "escape",
    "finite_step",
    "fokker_planck",
    "laplace",
    "quadratic",
    "scaling",
]
