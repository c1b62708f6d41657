"""Finetuning of Uni-Mol's last layers: what is trained, settled before anything is computed.

In: settings. Out: a plan, and the model of what lies above the cut.

Read first: `plan` (layers and cut), then `preparation` (the room for the trunk), `energy_model`.
"""
