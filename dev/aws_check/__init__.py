"""`make aws-check`: the whole story once on real AWS, with accounts of the operator's, and a
clean-up at its end.
"""
