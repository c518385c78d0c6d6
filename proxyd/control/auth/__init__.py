"""
Who may ask: one authenticator for each way to find out.

L{roles<proxyd.control.auth.roles>} has what they have in common; what they are
told to do is in L{proxyd.rules.auth}.
"""
