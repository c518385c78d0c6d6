"""The control plane: rules that are kept, the admin API and its page, authentication, metrics."""
