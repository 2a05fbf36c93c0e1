# SPDX-License-Identifier: MIT
"""Holds the extension module `_pyapi`, built from Go by setup.py; `_core` alone imports it."""
