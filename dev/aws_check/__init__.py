"""`make aws-check`: tests Deputy on AWS with the operator's accounts, and cleans up."""
