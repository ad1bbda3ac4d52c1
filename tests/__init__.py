"""The tests. Nothing is garbage while they are collected: conftest.py lets the collector begin."""

import gc

gc.disable()
