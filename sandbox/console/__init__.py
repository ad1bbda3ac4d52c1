"""The sandbox's copy of AWS's CloudFormation console, so that onboarding can be clicked through without AWS.

It opens the same quick-create link and does no more than AWS's console does: it shows the template and calls
CreateStack with what the person chose. Whatever the sandbox's AWS refuses, it shows as a refusal.
"""

from sandbox.console.app import console_app

__all__ = ["console_app"]
