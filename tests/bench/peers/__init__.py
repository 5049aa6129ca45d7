"""The peers: the same job in other systems, each in an environment of its own that is made here."""
