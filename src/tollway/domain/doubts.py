"""Why a usage is not certain though its provider told it: short names, in the ledger with commas between them."""

UNTRUE_COUNT = "untrue_count"
"""A count could not be true and was taken from the total."""
TOTAL_DIFFERS = "total_differs"
"""The total is not the sum of what it should be the sum of."""
PARTS_EXCEED_WHOLE = "parts_exceed_whole"
"""Of a whole more was told than there is of it."""
UNREADABLE_TIER = "unreadable_tier"
"""What stands for the service tier is no name of one."""
PROMPT_UNTOLD = "prompt_untold"
"""The output was told without a prompt, which was estimated."""
OUTPUT_UNTOLD = "output_untold"
"""The answer says something, and its output was told as nothing, or not at all: then it is estimated."""

SPLIT_UNTOLD = "split_untold"
"""Only the total was told: how much of it went in and came out is estimated."""
INTERIM_USAGE = "interim_usage"
"""The usage came before far more text than it tells of, and none after it: the output is estimated."""
SEARCH_UNTOLD = "search_untold"
"""The web could be searched, which costs a fee, and the answer does not tell how often it was."""


def joined(*doubts: str) -> str:
    """Several, some of which may be none or several themselves, as one."""
    return ",".join([doubt for doubt in doubts if doubt])
