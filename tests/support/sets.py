"""Permission sets of a vendor's own, as folders."""

from pathlib import Path

_HERE = Path(__file__).parent / "permission-sets"
# Three good ones: with a policy of AWS's, with a parameter, and one that writes
VENDOR = _HERE / "vendor"
MISTAKEN = _HERE / "mistaken"

GOOD = {
    "version": 3,
    "title": "Inventory",
    "description": "Lets us look.",
    "access": "read",
    "statements": [
        {
            "Sid": "Look",
            "why": "Shows what there is.",
            "Effect": "Allow",
            "Action": ["s3:ListBucket"],
            "Resource": ["arn:${AWS::Partition}:s3:::a", "arn:${AWS::Partition}:s3:::b"],
            "Condition": {"StringEquals": {"aws:ResourceAccount": "${aws:PrincipalAccount}"}},
        }
    ],
}
