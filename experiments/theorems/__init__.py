"""The theorems of the field as cases of the toolkit: each is solved, certified, and held against its closed form.

One file a subject, each with its `THEOREMS`; `python -m experiments.theorems` checks them all.
"""
