"""Rules as values: patterns, templates, globs, the table, and the request that a rule makes."""
