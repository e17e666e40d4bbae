"""One component of one step. Only + - *, with the noise passed in, so tensors work too."""


def noisy_gradient(gradient, noise, scale):
    """Mini-batch gradient ``g + scale xi``, scale = sigma/sqrt(S) (Jastrzebski et al. 2017)."""
    return gradient + scale * noise


def sgd(x, gradient, learning_rate):
    """``x - eta g``."""
    return x - learning_rate * gradient


def momentum_buffer(buffer, gradient, momentum):
    """PyTorch's heavy ball: ``b <- m b + g``, then ``x <- x - eta b``."""
    return momentum * buffer + gradient


def euler_maruyama(x, gradient, noise, dt, amplitude):
    """``x - dt grad U + amplitude xi``; amplitude = sqrt(2 T dt) (Ito)."""
    return x - dt * gradient + amplitude * noise
