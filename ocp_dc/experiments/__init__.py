"""The paper's MD17 tables and figures: the experiments as data, running them, and what came out."""
