"""Pages for people: the hosted onboarding page. Server-rendered; they work without JavaScript."""
