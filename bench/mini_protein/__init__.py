"""MolSieve-Mini-Protein: what it must not have seen, and its model card.

`exclude` lists the proteins that resemble a test set, by MMseqs2; jobs.pretrain trains without
them; `card` writes the card's figures from what the job left.
"""
