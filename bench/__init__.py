"""The programs of `make bench`: Deputy under load beside its peers, and the goals.

app/ never imports it.
"""
