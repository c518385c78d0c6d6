"""Hypothesis without deadlines: the machines that run this share their cores."""

from hypothesis import settings

settings.register_profile("proxyd", deadline=None)
settings.load_profile("proxyd")
