"""How Sphinx makes a site of these pages: C{make docs}."""

project = "proxyd"
extensions = ["myst_parser"]
nitpicky = True

# Headings have the same anchors here as on a code host.
myst_heading_anchors = 4

html_theme_options = {"description": "A reverse proxy for HTTP and WebSocket, built on Twisted", "page_width": "70rem"}
html_sidebars = {"**": ["about.html", "navigation.html", "searchbox.html"]}
html_copy_source = False
html_show_copyright = False
