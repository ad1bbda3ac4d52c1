"""The only folder that speaks to AWS. Nothing outside it imports boto3, and nothing leaves it
but plain values.
"""
