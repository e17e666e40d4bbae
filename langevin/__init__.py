"""langevin: where SGD ends up, and how learning rate, batch size and noise decide it."""

from langevin import surfaces
from langevin.dynamics import SGD, Overdamped
from langevin.observe import Histogram, Moments, Occupation
from langevin.simulate import simulate
from langevin.surfaces.expression import Surface
from langevin.surfaces.noise import Isotropic

__version__ = "0.1.0"
