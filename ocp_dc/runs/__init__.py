"""Runs of experiments: a folder with ``experiment.json`` becomes one with ``result.json``, whatever is done in between.

``experiment.json`` says what is to be done:

- ``work``: the function that does it, as ``package.module:function``. It is called with the folder and with what
  ``experiment.json`` says, goes on from whatever an earlier call has left in the folder, and returns
  :class:`~ocp_dc.runs.worker.Work`: named quantities with values and units. It raises
  :class:`~ocp_dc.errors.DivergedError` where there is nothing to measure since numbers became infinite.
- ``steps``: how many there are; ``log``: the file in the folder that has a line of JSON with ``step`` for some of them.
- ``cell``: the cell of a table that it is for; ``seed``: runs of a cell differ in nothing else.
- ``pace``: words for what takes as long a step: the first for runs that differ in nothing that costs time, others for
  runs that are like it, from the closest to the least close.
- whatever else the function or a reader wants to know.

``result.json`` has ``status`` (``finished``, ``diverged``, ``failed``), ``step``, ``message``, ``seconds``, ``device``
and ``quantities``.

A :class:`~ocp_dc.runs.study.Study` plans such runs for its tables. Nothing here knows what is studied.
"""
