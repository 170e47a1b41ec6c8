"""Molecular dynamics with trained models, and the metrics that the field judges it by.

``running`` simulates replicas in one batch, ``metrics`` are functions of arrays, ``report`` compares simulations.
Files of a simulation: ``simulation.json``, ``state.json``, and ``replica_0.extxyz`` and so on, see ``folder``.
"""
