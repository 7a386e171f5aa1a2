"""Bridges to tools of others. Each needs that tool, which an extra of the package installs.

- ``snnc.adapters.lm_eval``: lm-evaluation-harness, ``pip install snnc[lm-eval]``
- ``snnc.adapters.neurobench``: NeuroBench, ``pip install snnc[neurobench]``
- ``snnc.adapters.spikingjelly``: SpikingJelly, ``pip install snnc[spikingjelly]``
"""
