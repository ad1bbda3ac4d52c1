"""The sandbox's copy of AWS's CloudFormation console, for clicking through onboarding without AWS.

It opens the same quick-create link and does what AWS's console does: it shows the template and
calls CreateStack with the user's choices. It shows each refusal of the sandbox's AWS.
"""

from sandbox.console.app import console_app

__all__ = ["console_app"]
