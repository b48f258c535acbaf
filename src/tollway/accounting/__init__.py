"""What did it cost: journal, posting to the ledger, prices."""
