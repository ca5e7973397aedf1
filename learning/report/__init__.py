"""One HTML page about a project: which of the model's answers annotators accepted, and which they corrected.

In reading order:

    report.py           read the regions, write the page and the figures as JSON
    figures.py          compute the figures
    version_history.py  the registered versions and their verdicts
    page.py             render the page with report.html.jinja
    charts.py           SVG charts
    gallery.py          pictures of the worst mistakes
"""
