"""The programs that `make` runs: set-up, starting everything on one machine, and the demo.

app/ never imports dev/.
"""
