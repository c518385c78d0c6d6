"""Where rules that change at run time are kept; see L{proxyd.interfaces.IRuleStore}."""
