"""Subcommands of C{proxyd} that talk to a running proxyd."""
