"""Candles of a market data platform, as a frame or an exception."""

from mdp_client.answer import Candles
from mdp_client.client import Client
from mdp_client.errors import *  # noqa: F403
from mdp_client.version import __version__
