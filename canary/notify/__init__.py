"""Notifications: what the audit tells, sent on to where the spec says. Nothing of a release waits for them."""
