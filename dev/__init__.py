"""The programs that `make` runs, such as the set-up, the service on one machine, and the demo.

app/ never imports dev/.
"""
