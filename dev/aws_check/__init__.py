"""`make aws-check`: Deputy's functions on AWS, with the operator's accounts, and a clean-up."""
