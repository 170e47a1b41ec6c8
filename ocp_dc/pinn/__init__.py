"""Physics-informed networks: the paper's Tables 3, 4 and 5 (Sec. 5.2, Appx. E); extra ``pinn``.

``equations`` says what is solved, ``fields`` what a solution is, ``hdf5`` reads and writes PDEBench's files, and
``generation`` makes such data with the solvers ``euler`` and ``diffusion_reaction``. ``as_published`` and ``corrected``
are the two protocols; ``training`` does the work of a run, ``study`` plans the tables.

Nothing else imports this, and nothing here imports DeepXDE before a run is at work, in a process of its own: importing
DeepXDE changes PyTorch's default device.
"""
