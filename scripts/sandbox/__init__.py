"""A local server that speaks the exchanges' REST protocols, so that nothing needs a network."""
