"""The paper's tables and figures: the experiments as data, running them, and what came out."""
