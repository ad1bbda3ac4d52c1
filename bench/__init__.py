"""What `make bench` runs: Deputy under load beside its peers, and the goals it is held to. Never imported by app/."""
