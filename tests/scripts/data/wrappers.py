# SPDX-License-Identifier: MIT
"""install() and uninstall() among other people's wrappers of get_preparation_data."""

import pickle
import sys
from multiprocessing import context, spawn

from gopool._install import install, installed, uninstall

plain = spawn.get_preparation_data
want = plain("x")


def wrap(key):
    inner = spawn.get_preparation_data

    def outer(name):
        return {**inner(name), key: True}

    spawn.get_preparation_data = outer
    return outer


def first_in_child():
    """The dict as it leaves here, and as it arrives in a process that is not installed."""
    data = spawn.get_preparation_data("x")
    # The key in it pickles only while a process is being started.
    context.set_spawning_popen(True)
    packed = pickle.dumps(data)
    context.set_spawning_popen(None)
    uninstall()
    path = list(sys.path)
    arrived = pickle.loads(packed)
    assert sys.path == path
    return data, arrived


# Alone: equal there and here, plain values on arrival, and installed by it.
install()
install()
data, arrived = first_in_child()
assert data == want == arrived, (data, arrived)
assert bool(data["log_to_stderr"]) is False and repr(data) == repr(want)
assert type(arrived["log_to_stderr"]) is bool
assert installed()
uninstall()
assert spawn.get_preparation_data is plain

# Somebody else below: the wrapper below comes back.
below = wrap("below")
install()
data, arrived = first_in_child()
assert installed() and arrived == {**want, "below": True}, arrived
uninstall()
assert spawn.get_preparation_data is below

# Somebody else above: it stays, ours below it passes through, and installs again later.
install()
above = wrap("above")
uninstall()
assert spawn.get_preparation_data is above
assert type(spawn.get_preparation_data("x")["log_to_stderr"]) is bool
install()
data, arrived = first_in_child()
assert installed() and arrived == {**want, "below": True, "above": True}, arrived
uninstall()
assert spawn.get_preparation_data is above
print("fine")
