# SPDX-License-Identifier: MIT
"""Front file of CPython's multiprocessing suite for the start method fork.

A module of its own, because children import the test classes by this name.
"""

from test._test_multiprocessing import install_tests_in_module_dict

install_tests_in_module_dict(globals(), "fork")
