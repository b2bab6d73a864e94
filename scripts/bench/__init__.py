"""How fast the service is, as ratios to something measured in the same run: `make bench`."""
