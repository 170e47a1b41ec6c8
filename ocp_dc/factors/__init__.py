"""One factor at a time: which part of the paper's method, or of another protocol, does what.

The paper's method changes the activation and the labels, the paper's scripts can change the learning rate, and the
recommended protocol changes labels and rate. Here every activation meets every kind of label and every rate, with one
network on one molecule; all else is the paper's protocol.
"""
