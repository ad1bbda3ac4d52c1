"""What `make` runs: setting up, starting everything on one machine, and telling the story. Never imported by app/."""
