"""Pages of a web browser about testbeds and runs: ``testbed ui``.

Nothing below this package imports it; it needs the extra ``ui`` (NiceGUI).
"""
