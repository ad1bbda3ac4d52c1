"""Pages for people: the onboarding page, rendered on the server. They work without JavaScript."""
