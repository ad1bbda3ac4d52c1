"""The sandbox's copy of AWS's CloudFormation console, for onboarding by hand without AWS.

It opens the same quick-create link as AWS's console. It shows the template, calls CreateStack with
the user's choices, and shows each refusal of the sandbox's AWS.
"""
