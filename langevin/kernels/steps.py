"""One component of one step. Only + - *, with the noise passed in, so tensors work too."""


def noisy_gradient(gradient, noise, scale):
    """Mini-batch gradient ``g + scale xi``, scale = sigma/sqrt(S) (Jastrzebski et al. 2017)."""
    return gradient + scale * noise


def decayed_gradient(gradient, x, weight_decay):
    """PyTorch's weight decay, ``g + lambda x``: before the momentum buffer."""
    return gradient + weight_decay * x


def drifting_gradient(gradient, drift, scale):
    """``g - scale D``, D = sum_jk B_jk dB_ik/dx_j (Stratonovich); scale = eta/(2 S (1 - m))."""
    return gradient - scale * drift


def sgd(x, gradient, learning_rate):
    """``x - eta g``."""
    return x - learning_rate * gradient


def momentum_buffer(buffer, gradient, momentum):
    """PyTorch's heavy ball: ``b <- m b + g``, then ``x <- x - eta b``."""
    return momentum * buffer + gradient


def nesterov_gradient(gradient, buffer, momentum):
    """PyTorch's Nesterov: the step is ``eta (g + m b)``, b the new buffer."""
    return gradient + momentum * buffer


def euler_maruyama(x, gradient, noise, dt, amplitude):
    """``x - dt grad U + amplitude xi``; amplitude = sqrt(2 T dt) (Ito)."""
    return x - dt * gradient + amplitude * noise


def heun(x, gradient, predicted, noise, half_dt, amplitude):
    """``x - (g + g')dt/2 + amplitude xi``, g' at the Euler-Maruyama step with the same xi."""
    return x - half_dt * (gradient + predicted) + amplitude * noise


def leimkuhler_matthews(x, gradient, before, noise, dt, half_amplitude):
    """``x - dt g + sqrt(2 T dt)(xi_n + xi_n+1)/2`` (Leimkuhler and Matthews 2013)."""
    return x - dt * gradient + half_amplitude * (before + noise)


def exact_step(centre, mean, noise, root_temperature):
    """The Ornstein-Uhlenbeck transition, ``x* + [exp(-H dt)(x - x*)] + sqrt(T) [B xi]``."""
    return centre + mean + root_temperature * noise


def kick(v, gradient, dt):
    """B: ``v - dt g``; dt stands for dt/M."""
    return v - dt * gradient


def drift(x, v, dt):
    """A: ``x + dt v``."""
    return x + dt * v


def ornstein_uhlenbeck(v, noise, decay, spread):
    """O: friction and noise exactly, ``v e^(-gamma dt) + sqrt(T/M (1 - e^(-2 gamma dt))) xi``."""
    return decay * v + spread * noise
