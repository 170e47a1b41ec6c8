"""What a config may say: read with line numbers, and checked as a whole before anything heavy is imported.

:mod:`reading` takes files apart, :mod:`arguments` and :mod:`flags` the command line; :mod:`schema` has every key with
its type and range; :mod:`checking` brings these together and lists all problems at once.
"""
