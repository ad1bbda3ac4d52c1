"""The programs of `make bench`. They compare Deputy under load with its peers and with the goals.

app/ never imports it.
"""
