"""The distribution's version and the name under which it asks."""

import platform

__version__ = "0.1.0"

USER_AGENT = f"mdp-client/{__version__} python/{platform.python_version()}"
