"""The only folder that calls AWS.

Only this folder imports boto3. It returns plain values only.
"""
