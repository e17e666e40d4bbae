"""Names of parametrised tests are the same in every process that collects them."""


def pytest_make_parametrize_id(config, val, argname):
    """No test is named by bytes: a packed file's hold the time at which it was packed."""
    return f"{argname}:{len(val)} bytes" if isinstance(val, bytes) else None
