"""The only folder that calls AWS and imports boto3. It returns plain values only."""
