# SPDX-License-Identifier: MIT
"""Shows a manager: ordinary dicts and lists that live in a server and are used from anywhere."""

from multiprocessing import Manager, Process


def keep_accounts(balances, journal):
    """Change both containers; the changes happen in the manager's process."""
    balances["rent"] = -700
    balances["wages"] = 2400
    balances[2026] = None
    journal.append("booked")
    journal.reverse()


def main():
    """Hand two proxies to a child and print what it left in them."""
    with Manager() as manager:
        balances = manager.dict()
        journal = manager.list(["opened", "checked"])
        child = Process(target=keep_accounts, args=(balances, journal))
        child.start()
        child.join()
        print(balances)
        print(journal)


if __name__ == "__main__":
    main()
